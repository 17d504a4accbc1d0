"""Pixels of one image are found in another, wherever they lie there, and chance finds none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.scenes.shared_pixels import share_in_other_units, shared_share
from rsedge.data.sets.scene_sources import is_here, load_scene


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


def smooth(seed: int, shape: tuple[int, int, int], over: int = 3) -> npt.NDArray[np.uint16]:
    """Ground as reflectance * 10000, whose neighbours are alike as in nature."""
    rough = np.random.default_rng(seed).standard_normal((shape[0], shape[1] + over, shape[2] + over))
    for axis in (1, 2):
        rough = np.cumsum(rough, axis)
        rough = (
            np.take(rough, range(over, rough.shape[axis]), axis) - np.take(rough, range(rough.shape[axis] - over), axis)
        ) / over
    return (2000 + 900 * rough).clip(1, 9000).astype(np.uint16)


@given(
    st.integers(0, 999), st.integers(0, 60), st.integers(0, 60), st.sampled_from([-1000, 0, 1000, 2000]),
    st.sampled_from([0.5, 1.0, 2.0, 2.75, 1 / 0.7]), st.sampled_from(["uint16", "float32"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_part_is_found_in_whatever_units(
    seed: int, row: int, col: int, offset: int, scale: float, dtype: str
) -> None:
    image = smooth(seed, (3, 120, 110)) + np.uint16(max(0, -offset))
    part = image[:, row : row + 50, col : col + 45].astype(np.float64)
    units = ((part + offset) * scale).clip(1, 65535)
    units = np.rint(units).astype(dtype) if dtype == "uint16" else units.astype(dtype)
    whole = image.astype(dtype)
    assert share_in_other_units(whole, every(whole), units, every(units)) == pytest.approx(50 * 45 / (120 * 110))
    assert share_in_other_units(units, every(units), whole, every(whole)) == 1
    elsewhere = smooth(seed + 1000, (3, 120, 110)).astype(dtype)
    assert share_in_other_units(elsewhere, every(elsewhere), units, every(units)) == 0


def test_only_pixels_in_use_count_in_other_units_too() -> None:
    image = smooth(0, (2, 90, 700))
    left, right = every(image), every(image)
    left[:, 300:], right[:, :400] = False, False
    assert share_in_other_units(image, left, image + 1000, right) == 0
    right[:, 150:] = True
    assert share_in_other_units(image, left, image + 1000, right) == 0.5


@given(st.integers(0, 999), st.sampled_from(["flat", "ramp", "steps", "stripes"]))
@settings(max_examples=20, deadline=None)
def test_plain_ground_is_not_the_same_by_its_order(seed: int, kind: str) -> None:
    rows, cols = np.mgrid[:80, :80]
    shape = {"flat": 0 * rows, "ramp": rows + 2 * cols, "steps": (rows + cols) // 20, "stripes": cols % 9}[kind]
    first, second = (np.stack([shape + 100 * (s + b) for b in range(2)]).astype(np.uint16) for s in (seed, seed + 3))
    assert share_in_other_units(first, every(first), second, every(second)) == 0


@pytest.mark.parametrize("noise", [150, 400])
def test_another_date_of_the_same_ground_is_not_the_same_image(noise: int) -> None:
    image = smooth(1, (4, 200, 200))
    later = (image * 1.1 + np.random.default_rng(5).normal(0, noise, image.shape)).clip(1, 65535).astype(np.uint16)
    assert share_in_other_units(image, every(image), later, every(later)) == 0


@pytest.mark.skipif(not is_here("sen1floods11-spain"), reason="the scene is not on this machine")
def test_a_real_scene_is_found_in_other_units_and_no_other() -> None:
    bands = ("blue", "green", "red", "nir")
    spain, chip = (
        np.rint(load_scene(name).select(bands) * 1e4).astype(np.uint16)  # type: ignore[operator]
        for name in ("sen1floods11-spain", "s2-chip-33188")
    )
    for scale in (1.0, 0.275, 2.75):
        units = np.rint(spain[:, 30:300, 50:400] * scale + 1000).astype(np.uint16)
        assert share_in_other_units(units, every(units), spain, every(spain)) == 1
    assert share_in_other_units(chip, every(chip), spain, every(spain)) == 0
    assert share_in_other_units(spain, every(spain), chip, every(chip)) == 0
