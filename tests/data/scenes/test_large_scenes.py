"""A scene that lies in a file and is gone over in strips gives what one in memory gives, bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data import paged
from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.scenes.augment import AugmentSettings, ViewGenerator, prepare_scenes
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.shared_pixels import share_in_other_units, shared_share
from rsedge.data.sets.scene_sources import SIX

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, wavelength_nm=WAVELENGTHS_NM[n], scale=1e-4, nodata=0) for n in SIX), tile=32
)


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything lies in files, and strips are a few rows."""
    monkeypatch.setattr(paged, "LARGE", 1)
    monkeypatch.setattr(paged, "STRIP", 5000)
    yield


def scenes(seed: int, height: int, width: int) -> list[Scene]:
    """One whole, one with its bands in another order, one that lacks two."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0.02, 0.6, (3, 6, height, width)).astype(np.float32)
    valid, labels = rng.random((3, height, width)) < 0.9, rng.integers(0, 4, (height, width)).astype(np.uint8)
    return [
        Scene("a", images[0], valid[0], SIX, 10.0, "a", labels=labels),
        Scene("b", images[1], valid[1], SIX[::-1], 20.0, "b"),
        Scene("c", images[2][:4], valid[2], SIX[:4], 5.0, "c"),
    ]


def drawn(given_scenes: list[Scene], seed: int) -> list[np.ndarray]:
    views = ViewGenerator(prepare_scenes(given_scenes, SPEC, classes=3), SPEC, AugmentSettings(), seed)
    return [f(number) for number in range(6) for f in (views, views.labels)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(40, 150), st.integers(40, 150))
def test_views_and_digital_numbers_are_the_same(seed: int, height: int, width: int) -> None:
    made = scenes(seed, height, width)
    expected = drawn(made, seed), [s.digital_numbers(SPEC, SIX) for s in made[:2]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paged, "LARGE", 1)
        patch.setattr(paged, "STRIP", 5000)
        found = drawn(made, seed), [s.digital_numbers(SPEC, SIX) for s in made[:2]]
    for one, other in zip(expected[0] + expected[1], found[0] + found[1], strict=True):
        assert one is not None and other is not None and np.array_equal(one, other)
    first = made[0].digital_numbers(SPEC, SIX)
    assert first is not None and np.array_equal(first, SPEC.to_dn(made[0].image))


@pytest.mark.usefixtures("small_strips")
def test_images_are_told_apart_strip_by_strip() -> None:
    image = np.random.default_rng(0).integers(1, 4000, (4, 160, 140)).astype(np.uint16)
    elsewhere, every = (
        np.random.default_rng(1).integers(1, 4000, image.shape).astype(np.uint16),
        np.ones((160, 140), bool),
    )
    part = image[:, 30:120, 20:110]
    whole = np.ones(part.shape[1:], bool)
    assert shared_share(part, whole, image, every) == 1 and shared_share(image, every, elsewhere, every) == 0
    assert share_in_other_units(part, whole, 2 * image + 1000, every) == 1
    assert share_in_other_units(part, whole, 2 * elsewhere + 1000, every) == 0
