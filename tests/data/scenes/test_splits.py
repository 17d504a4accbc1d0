"""Spatial blocks: each pixel on one side, guards between, across corners too."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.scenes.splits import FEW_UNITS, SPLITS, block_split, few_words

FRACTIONS = {"calibration": 0.15, "selection": 0.2, "test": 0.25}


def near(mask: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    """Pixels within a Chebyshev distance of those of a mask, by brute force."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    for y, x in zip(*np.nonzero(mask), strict=True):
        out[
            max(0, y - distance) : min(height, y + distance + 1), max(0, x - distance) : min(width, x + distance + 1)
        ] = True
    return out


@settings(deadline=None, max_examples=30)
@given(st.integers(64, 120), st.integers(64, 120), st.integers(8, 20), st.integers(0, 999), st.integers(0, 3))
def test_every_pixel_has_at_most_one_role_and_guards_separate_them_across_corners_too(
    h: int, w: int, block: int, seed: int, guard: int
) -> None:
    split = block_split((h, w), block, FRACTIONS, seed, guard)
    masks = [split.mask(s) for s in SPLITS]
    assert np.sum(masks, axis=0).max() <= 1
    assert all(m.any() for m in masks)
    for a in range(len(SPLITS)):
        reached = near(masks[a], 2 * guard)
        assert not any((reached & masks[b]).any() for b in range(len(SPLITS)) if b != a)
    unguarded = block_split((h, w), block, FRACTIONS, seed)
    assert (split.codes == unguarded.codes)[split.codes != 255].all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.floats(0.05, 0.4))
def test_one_more_role_takes_from_training_alone(seed: int, fraction: float) -> None:
    three = block_split((128, 128), 8, {"calibration": 0.1, "test": 0.25}, seed)
    four = block_split((128, 128), 8, {"calibration": 0.1, "test": 0.25, "selection": fraction}, seed)
    for role in ("calibration", "test"):
        assert np.array_equal(three.mask(role), four.mask(role))
    assert (three.mask("train") >= four.mask("selection")).all()


def test_same_seed_same_split_and_other_seed_another() -> None:
    a, b, c = (block_split((128, 128), 16, FRACTIONS, s) for s in (1, 1, 2))
    assert np.array_equal(a.codes, b.codes) and a.digest() == b.digest() != c.digest()


def test_too_few_blocks_is_an_error_with_the_fix() -> None:
    with pytest.raises(RequestError, match=r"too few for 25% test; make data\.block smaller"):
        block_split((64, 64), 64, FRACTIONS, 0)


def test_fractions_must_leave_training() -> None:
    with pytest.raises(RequestError, match="leave room"):
        block_split((64, 64), 8, {"calibration": 0.3, "selection": 0.3, "test": 0.4}, 0)


def test_a_small_role_is_said_and_a_large_one_is_not() -> None:
    assert few_words("test", FEW_UNITS, "blocks") is None
    words = few_words("test", FEW_UNITS - 1, "blocks with labels", ["shadow"])
    assert words is not None and "only 7 blocks with labels and nothing of class shadow" in words
