"""Pixels of one image are found in another, wherever they lie there, and chance finds none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.scenes.shared_pixels import shared_share


def ground(seed: int, shape: tuple[int, int, int], dtype: str = "uint16") -> npt.NDArray[np.generic]:
    return np.random.default_rng(seed).integers(0, 3000, shape).astype(dtype)


def every(image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.ones(image.shape[1:], bool)


@given(st.integers(0, 999), st.integers(0, 60), st.integers(0, 60), st.sampled_from(["uint16", "float32", "uint8"]))
@settings(max_examples=20, deadline=None)
def test_a_part_is_found_wherever_it_lies(seed: int, row: int, col: int, dtype: str) -> None:
    image = ground(seed, (3, 120, 110), dtype)
    part = image[:, row : row + 40, col : col + 30]
    assert shared_share(part, every(part), image, every(image)) == 1
    assert 0 < shared_share(image, every(image), part, every(part)) < 0.3
    elsewhere = ground(seed + 1000, (3, 120, 110), dtype)
    assert shared_share(part, every(part), elsewhere, every(elsewhere)) == 0


def test_only_pixels_in_use_count() -> None:
    image = ground(0, (2, 90, 700))
    left, right = every(image), every(image)
    left[:, 300:], right[:, :400] = False, False
    assert shared_share(image, left, image, right) == 0
    right[:, 150:] = True
    assert shared_share(image, left, image, right) == pytest.approx(0.5, abs=0.06)


def test_flat_ground_tells_nothing() -> None:
    flat = np.full((3, 50, 50), 7, np.uint16)
    assert shared_share(flat, every(flat), flat, every(flat)) == 0
    small = ground(0, (3, 2, 2))
    assert shared_share(small, every(small), flat, every(flat)) == 0


@pytest.mark.parametrize("bands", [2, 3])
def test_pixels_around_which_there_is_no_window_tell_nothing(bands: int) -> None:
    image = ground(0, (bands, 50, 50))
    nothing, border = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    border[0] = True
    for own in (nothing, border):
        assert shared_share(image, own, image, every(image)) == 0


@pytest.mark.parametrize(("bands", "levels"), [(1, 6), (2, 4), (3, 4)])
def test_a_few_grey_levels_are_not_alike_by_chance(bands: int, levels: int) -> None:
    first, second = (np.random.default_rng(s).integers(0, levels, (bands, 900, 900)).astype(np.uint8) for s in (1, 2))
    assert shared_share(first, every(first), second, every(second)) == 0
    assert shared_share(first[:, :60, :60], every(first[:, :60, :60]), first, every(first)) > 0.9
