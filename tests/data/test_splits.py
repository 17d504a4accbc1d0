"""Spatial blocks: each pixel on one side, guards between."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.splits import SPLITS, block_split


@settings(deadline=None, max_examples=40)
@given(st.integers(64, 200), st.integers(64, 200), st.integers(8, 24), st.integers(0, 999), st.integers(0, 3))
def test_every_pixel_has_at_most_one_split_and_guards_separate_them(
    h: int, w: int, block: int, seed: int, guard: int
) -> None:
    split = block_split((h, w), block, 0.2, 0.3, seed, guard)
    masks = [split.mask(s) for s in SPLITS]
    assert np.sum(masks, axis=0).max() <= 1
    assert all(m.any() for m in masks)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for axis in (0, 1):
            for shift in range(1, guard + 1):
                near = np.roll(masks[a], shift, axis)
                near[(slice(0, shift), slice(None)) if axis == 0 else (slice(None), slice(0, shift))] = False
                assert not (near & masks[b]).any()


def test_same_seed_same_split_and_other_seed_another() -> None:
    a, b, c = (block_split((128, 128), 16, 0.1, 0.2, s) for s in (1, 1, 2))
    assert np.array_equal(a.codes, b.codes) and a.digest() == b.digest() != c.digest()


def test_too_few_blocks_is_an_error_with_the_fix() -> None:
    with pytest.raises(RequestError, match=r"make data\.block smaller"):
        block_split((64, 64), 64, 0.1, 0.2, 0)


def test_fractions_must_leave_training() -> None:
    with pytest.raises(RequestError, match="leave room"):
        block_split((64, 64), 8, 0.5, 0.5, 0)
