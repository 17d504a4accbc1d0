"""Views: deterministic, of the contract's type, and never touching a held-out pixel."""

import numpy as np
import pytest

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.augment import AugmentSettings, ViewGenerator, ViewScene, prepare_scenes
from rsedge.data.scenes.clouds import simulate_clouds
from rsedge.data.scenes.fractal import FractalBank, resize
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.splits import block_split
from rsedge.data.sets.scene_sources import SIX

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, wavelength_nm=WAVELENGTHS_NM[n], scale=1e-4, nodata=0) for n in SIX), tile=64
)
WAVELENGTHS = np.array([WAVELENGTHS_NM[n] for n in SIX])


def ground(seed: int = 0, size: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.3, (6, size, size)).astype(np.float32)


def generator(seed: int = 3, settings: AugmentSettings | None = None) -> ViewGenerator:
    scene = ViewScene("a", ground(), np.ones((160, 160), bool), 10.0)
    return ViewGenerator([scene], SPEC, settings or AugmentSettings(), seed)


def test_views_are_the_same_in_any_order_and_differ_by_index() -> None:
    a, b = generator(), generator()
    later = b(5)
    b(1)
    assert np.array_equal(a(5), later) and not np.array_equal(a(5), a(6))
    assert later.shape == (6, 64, 64) and later.dtype == np.uint16


def test_another_seed_gives_other_views() -> None:
    assert not np.array_equal(generator(1)(0), generator(2)(0))


def test_no_held_out_pixel_is_ever_used() -> None:
    """Held-out blocks carry a brightness nothing else has; it must not appear in any plain view."""
    image = ground()
    split = block_split((160, 160), 32, {"calibration": 0.1, "test": 0.3}, seed=1)
    image[:, ~split.mask("train")] = 1.5
    plain = AugmentSettings(plain=1.0)
    make = ViewGenerator([ViewScene("a", image, split.mask("train"), 10.0)], SPEC, plain, 0)
    assert max(make(i).max() for i in range(40)) < 3300


def test_a_scene_without_all_bands_is_completed_from_the_others() -> None:
    full = Scene("full", ground(), np.ones((160, 160), bool), SIX, 10.0, "x")
    part = Scene("part", ground(1)[:4], np.ones((160, 160), bool), SIX[:4], 5.0, "y")
    views = prepare_scenes([full, part], SPEC)
    assert views[1].image.shape == (6, 160, 160) and views[1].weight < views[0].weight
    assert np.array_equal(views[1].image[:4], part.image)


def test_no_complete_scene_is_an_error_that_names_the_bands() -> None:
    part = Scene("part", ground(1)[:4], np.ones((160, 160), bool), SIX[:4], 5.0, "y")
    with pytest.raises(RequestError, match="swir16"):
        prepare_scenes([part], SPEC)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(RequestError, match="no pixel is left"):
        ViewGenerator([ViewScene("a", ground(), np.zeros((160, 160), bool), 10.0)], SPEC, AugmentSettings(), 0)


def test_clouds_brighten_and_shadows_darken() -> None:
    bank, rng = FractalBank(0, size=128, count=4), np.random.default_rng(0)
    image = np.full((6, 64, 64), 0.2, dtype=np.float32)
    bright, dark = [], []
    for _ in range(12):
        out, layer = simulate_clouds(image, WAVELENGTHS, 20.0, rng, bank)
        labels = layer.labels()
        bright.append(out[0][labels == 1])
        dark.append(out[3][labels == 2])
    cloudy, shaded = np.concatenate(bright), np.concatenate(dark)
    assert cloudy.size and shaded.size
    assert cloudy.mean() > 0.35 and (cloudy > 0.2).mean() > 0.95
    # Thin cloud over a shadow brightens it again, so the bulk is judged, not the mean.
    assert np.median(shaded) < 0.18 and (shaded < 0.2).mean() > 0.6


def test_resize_keeps_the_mean_and_constants() -> None:
    assert np.allclose(resize(np.full((2, 90, 70), 3.0), (32, 41)), 3.0)
    field = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    assert resize(field, (16, 16)).mean() == pytest.approx(field.mean(), abs=1e-3)
