"""Every kind of fault, a few times: refused with our own error or harmless, never a wrong answer, a crash or a hang."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.faults.kinds import FINE, all_kinds
from tests.faults.trying import Worker, tried


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One process for all kinds, for starting one takes seconds; an attempt that ends it brings a new one."""
    with contextlib.closing(Worker()) as found:
        yield found


@pytest.mark.parametrize("name", sorted(name for name, kind in all_kinds().items() if kind.few))
def test_a_few_faults_of_every_kind(name: str, worker: Worker) -> None:
    found = list(tried(name, range(all_kinds()[name].few), worker))
    assert found and not [(seed, result) for seed, result in found if result.outcome not in FINE]
