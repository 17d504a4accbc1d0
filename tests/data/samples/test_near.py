"""Near copies of real-like samples are found whatever was done to one of them; independent samples are not joined."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rsedge.data.bands import Layout
from rsedge.data.samples.copies import copy_numbers
from rsedge.data.samples.near import near_numbers
from rsedge.data.samples.near_images import turned

Array = npt.NDArray[np.generic]
COUNT = 24


def numbers(values: Array, layout: Layout = "CHW", fill: float | None = None) -> npt.NDArray[np.intp]:
    bands = values.shape[1 + layout.index("C")]
    return near_numbers(values, layout, [fill] * bands, copy_numbers(values))


def ground(rng: np.random.Generator, edge: int, bands: int) -> npt.NDArray[np.uint16]:
    """A scene's corner in DN: bands that go together, of a roughness of its own, bright or as dark as water."""
    rough = ndimage.gaussian_filter(rng.normal(size=(edge, edge)), rng.uniform(0.5, 2))
    shape = rough / rough.std() + 0.3 * ndimage.gaussian_filter(rng.normal(size=(bands, edge, edge)), (0, 1, 1))
    level, contrast = rng.uniform(300, 3000), rng.uniform(20, 200)
    return np.round(np.maximum(level + contrast * shape, 1)).astype(np.uint16)


def shifted(rng: np.random.Generator, wide: Array, edge: int, most: int) -> tuple[Array, Array]:
    down, across = rng.integers(-most, most + 1, 2)
    cut = wide[:, most : most + edge, most : most + edge]
    return cut, wide[:, most + down : most + down + edge, most + across : most + across + edge]


def noisy(rng: np.random.Generator, image: Array) -> Array:
    return image.astype(np.int64) + rng.integers(-1, 2, image.shape)


def in_eight_bits(image: Array) -> Array:
    """Whole numbers of a common, coarser scale, as a file of bytes holds them."""
    low, high = image.min(), image.max()
    return np.round((image - low) / (high - low) * 255)


def smoothly_off(rng: np.random.Generator, image: Array) -> Array:
    return image * rng.uniform(0.2, 3) + rng.uniform(0, 50)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([24, 32, 48]), st.integers(1, 5), st.integers(0, 7),
    st.sets(st.sampled_from(["shift", "noise", "bytes", "scale"])),
)  # fmt: skip
def test_an_image_is_known_again_and_no_other_is(seed: int, edge: int, bands: int, turn: int, done: set[str]) -> None:
    rng = np.random.default_rng(seed)
    most = edge // 8
    wide = [ground(rng, edge + 2 * most, bands) for _ in range(COUNT)]
    images = [one[:, most : most + edge, most : most + edge].astype(np.float32) for one in wide]
    which = int(rng.integers(COUNT))
    images[which], copy = shifted(rng, wide[which].astype(np.float32), edge, most if "shift" in done else 0)
    copy = turned(copy, turn)
    copy = noisy(rng, copy) if "noise" in done else copy
    copy = smoothly_off(rng, copy) if "scale" in done else copy
    copy = in_eight_bits(copy) if "bytes" in done else copy
    assert numbers(np.stack([*images, copy]).astype(np.float32)).tolist() == [*range(COUNT), which]


@pytest.mark.parametrize("turn", range(8))
def test_small_images_are_known_again(turn: int) -> None:
    rng = np.random.default_rng(turn)
    images = np.stack([ndimage.gaussian_filter(rng.normal(size=(3, 16, 16)), (0, 1, 1)) for _ in range(20)])
    values = np.concatenate([images, turned(images, turn) * 2 + 1e-3 * rng.normal(size=images.shape)])
    assert numbers(values).tolist() == [*range(20)] * 2


@pytest.mark.parametrize(
    "made",
    [
        lambda rng: rng.normal(size=(1, 32, 32)),
        lambda rng: ndimage.gaussian_filter(rng.normal(size=(1, 32, 32)), (0, 4, 4)),
        lambda rng: np.round(800 + 2 * ndimage.gaussian_filter(rng.normal(size=(4, 32, 32)), (0, 0.6, 0.6))),
        lambda rng: (ndimage.gaussian_filter(rng.normal(size=(1, 32, 32)), (0, 3, 3)) > 0).astype(float),
        lambda rng: np.add.outer(rng.normal() * np.arange(32), rng.normal() * np.arange(32))[None],
        lambda rng: ship(rng, 0.0),
        lambda rng: ship(rng, 1.0),
    ],
    ids=["white", "smooth", "water", "masks", "ramps", "a ship on nothing", "a ship at sea"],
)
def test_independent_images_of_a_kind_are_not_joined(made: Callable[[np.random.Generator], Array]) -> None:
    values = np.stack([made(np.random.default_rng([5, i])) for i in range(300)]).astype(np.float32)
    assert numbers(values).tolist() == copy_numbers(values).tolist()


def ship(rng: np.random.Generator, noise: float) -> Array:
    image = rng.normal(size=(1, 32, 32)) * noise
    row, col = rng.integers(8, 24, 2)
    image[0, row - 1 : row + 2, col - 1 : col + 2] += 400
    return ndimage.gaussian_filter(image, (0, 1, 1))


def test_what_is_unknown_is_no_detail() -> None:
    rng = np.random.default_rng(8)
    values = np.stack([ground(rng, 32, 3) for _ in range(20)]).astype(np.int32)
    gaps = rng.random((20, 1, 6, 32)) < 0.5
    values[:, :, :6][np.broadcast_to(gaps, (20, 3, 6, 32))] = -9999
    copy = turned(values[4:5], 3) + rng.integers(-1, 2, (1, 3, 32, 32)) * (turned(values[4:5], 3) != -9999)
    assert numbers(np.concatenate([values, copy]), fill=-9999).tolist() == [*range(20), 4]


def test_all_eight_views_of_an_image_hang_together() -> None:
    rng = np.random.default_rng(9)
    images = [ground(rng, 32, 2) for _ in range(6)]
    values = np.stack([turned(image, turn) for turn in range(8) for image in images])
    assert numbers(values).tolist() == [*range(6)] * 8


def test_images_of_several_dates_and_oblong_ones() -> None:
    rng = np.random.default_rng(10)
    values = np.stack([ground(rng, 32, 6) for _ in range(8)])[..., :24, :]
    both = np.concatenate([values, values[..., ::-1, :] + np.uint16(1)])
    assert numbers(both).tolist() == [*range(8)] * 2
    dates = np.concatenate([turned(v, 1) for v in (values[..., :24], values[..., :24])])
    dates[8:] += rng.integers(0, 2, dates[8:].shape).astype(np.uint16)
    assert numbers(dates.reshape(16, 2, 3, 24, 24), "TCHW").tolist() == [*range(8)] * 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(12, 8), (3, 20), (24,), (4, 9, 9)]), st.booleans())
def test_a_series_is_known_again_and_no_other_is(seed: int, shape: tuple[int, ...], whole: bool) -> None:
    rng = np.random.default_rng(seed)
    layout: Layout = {1: "C", 2: "TC", 3: "CHW"}[len(shape)]  # type: ignore[assignment]
    values = (rng.normal(size=(100, *shape)).cumsum(1) * 300 + 2000).astype(np.float32)
    values = np.round(values) if whole else values
    which = int(rng.integers(100))
    step = rng.integers(-1, 2, shape) if whole else 1e-3 * rng.normal(size=shape)
    assert numbers(np.concatenate([values, values[which : which + 1] + step]), layout).tolist() == [*range(100), which]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_places_and_short_vectors_are_not_joined(size: int) -> None:
    values = np.random.default_rng(size).uniform(-90, 90, (3000, size)).astype(np.float32)
    assert numbers(values, "C").tolist() == copy_numbers(values).tolist()


def test_empty_series_are_no_copies() -> None:
    values = np.random.default_rng(2).normal(size=(40, 6, 5)).astype(np.float32)
    values[30:] = -1
    assert numbers(values, "TC", fill=-1).tolist() == list(range(40))
