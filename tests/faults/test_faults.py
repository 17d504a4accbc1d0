"""Every kind of fault, a few times: refused with our own error or harmless, never a wrong answer, a crash or a hang."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import pytest

from tests.faults.kinds import FINE, all_kinds
from tests.faults.trying import Worker, tried


@pytest.fixture(scope="module")
def workers() -> Iterator[collections.defaultdict[str, Worker]]:
    """A process for the kinds of each module."""
    found: collections.defaultdict[str, Worker] = collections.defaultdict(Worker)
    yield found
    for worker in found.values():
        worker.close()


@pytest.mark.parametrize("name", sorted(all_kinds()))
def test_a_few_faults_of_every_kind(name: str, workers: collections.defaultdict[str, Worker]) -> None:
    made = all_kinds()[name]
    worker = workers[made.attempt.__module__]
    found = list(tried(name, range(made.few), worker))
    assert found and not [(seed, result) for seed, result in found if result.outcome not in FINE]
