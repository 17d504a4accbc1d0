"""Copies are found whatever lies between them, joined in whole groups, and empty samples are none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.samples.copies import copy_numbers, joined, repeated


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.data())
def test_copies_share_a_group_and_no_group_is_split(which: list[int], data: st.DataObject) -> None:
    chips = np.random.default_rng(0).integers(0, 4000, (10, 3, 8, 8)).astype(np.uint16)[which]
    groups = np.array(data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(which), max_size=len(which))))
    copies = copy_numbers(chips)
    assert [[i == j for j in copies] for i in copies] == [[i == j for j in which] for i in which]
    found = joined(groups, copies)
    for i in range(len(which)):
        for j in range(i):
            if which[i] == which[j] or groups[i] == groups[j]:
                assert found[i] == found[j]
    if len(set(which)) == len(which):
        assert found.tolist() == groups.tolist()


def test_what_is_between_two_groups_joins_all_three() -> None:
    assert joined(np.array(list("abc")), np.array([0, 0, 2])).tolist() == list("aac")
    groups, copies = np.array(list("abbcd")), np.array([0, 0, 2, 2, 4])
    assert joined(groups, copies).tolist() == list("aaaad")


def test_empty_and_flat_samples_are_no_copies() -> None:
    flat = np.full((4, 2, 16, 16), 7, np.uint8)
    flat[2:, :, :3] = 0
    assert copy_numbers(flat).tolist() == [0, 1, 2, 3]
    assert copy_numbers(np.zeros((3, 2), np.float32)).tolist() == [0, 1, 2]
    places = np.array([[12.5, 48], [12.5, 48], [13, 48]], np.float32)
    assert copy_numbers(places).tolist() == [0, 0, 2]


def test_the_most_sheltered_role_keeps_a_copy() -> None:
    roles = np.array(["train", "selection", "test", "train", "selection", "train"])
    assert repeated(roles, np.array([0, 0, 0, 1, 1, 2])).tolist() == [True, True, False, True, False, False]
