"""Roles of samples of a whole, and which calls of a part are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.stages.parts.data import dealt
from rsedge.stages.parts.teacher import evenly


@given(
    st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=60).filter(lambda names: len(set(names)) >= 3),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_whole_groups_go_to_one_role_and_no_role_is_empty(
    names: list[str], test: float, selection: float, seed: int
) -> None:
    groups = np.array(names)
    roles = dealt(groups, test, selection, seed, "a.npz")
    assert set(roles) == {"train", "selection", "test"}
    for name in set(names):
        assert len(set(roles[groups == name])) == 1
    assert np.array_equal(roles, dealt(groups, test, selection, seed, "a.npz"))


def test_other_seeds_deal_otherwise() -> None:
    groups = np.array([f"g{i}" for i in range(20)])
    assert len({tuple(dealt(groups, 0.25, 0.25, seed, "a")) for seed in range(5)}) > 1


def test_too_few_groups_are_refused_in_words() -> None:
    with pytest.raises(RequestError, match="holds 2 groups; at least 3 are needed"):
        dealt(np.array(["a", "b", "a"]), 0.25, 0.25, 0, "a.npz")


@given(st.integers(1, 60), st.integers(2, 12))
def test_calls_that_are_kept_lie_evenly_with_the_ends(count: int, most: int) -> None:
    calls = [({"time": np.array([i])}, {}) for i in range(count)]
    kept = [int(given["time"][0]) for given, _ in evenly(calls, most)]
    assert len(kept) == min(count, most) and kept[0] == 0 and kept[-1] == count - 1
    steps = np.diff(kept)
    assert not len(steps) or steps.max() - steps.min() <= 1
