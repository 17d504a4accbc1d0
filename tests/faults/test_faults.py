"""Every kind of fault, a few times: refused with our own error or harmless, never a wrong answer, a crash or a hang."""

from __future__ import annotations

import pytest

from tests.faults.kinds import FINE, all_kinds
from tests.faults.trying import tried


@pytest.mark.parametrize("name", sorted(all_kinds()))
def test_a_few_faults_of_every_kind(name: str) -> None:
    found = list(tried(name, iter(range(all_kinds()[name].few))))
    assert found and not [(seed, result) for seed, result in found if result.outcome not in FINE]
