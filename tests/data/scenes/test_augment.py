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


def marked(labels: np.ndarray) -> Scene:
    """A scene whose reflectance is that of its class: 0.1, 0.3, and 0.7 where nothing is labelled."""
    image = np.broadcast_to(np.array([0.1, 0.3])[labels.clip(0, 1)], (6, *labels.shape)).astype(np.float32)
    image = np.where(labels == 255, np.float32(0.7), image)
    return Scene("a", image, np.ones(labels.shape, bool), SIX, 10.0, "x", labels=labels)


def test_labels_lie_where_their_ground_is_seen_alone() -> None:
    labels = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 3, (10, 10)), 16, 0), 16, 1).astype(np.uint8)
    labels[labels == 2] = 255
    settings = AugmentSettings(
        gsd_m=(8.0, 25.0), mix=0.5, spectra=0.5, clouds=0.5, darken=0.0, gain=0.0, band_gain=0.0, offset=0.0, haze=0.0,
        blur=0.0, noise=0.0, saturate=0.0, plain=0.3,
    )  # fmt: skip
    made = ViewGenerator(prepare_scenes([marked(labels)], SPEC, classes=2), SPEC, settings, 4)
    plain = ViewGenerator(prepare_scenes([marked(labels)], SPEC), SPEC, settings, 4)
    shares = []
    for i in range(30):
        view, known = made(i), made.labels(i)
        assert np.array_equal(view, plain(i)), "labels change no view"
        assert known.shape == (64, 64) and set(np.unique(known)) <= {-1.0, 0.0, 1.0}
        ordered = [view[:, known == k].mean() for k in (0, 1) if (known == k).any()]
        shares.append(float((known >= 0).mean()))
        assert ordered == sorted(ordered)
        if len(ordered) == 2:
            apart = view[2, known == 1].min() - view[2, known == 0].max()
            assert apart > 0, "a pixel of one class looks like the other"
    assert 0.2 < np.mean(shares) < 0.65
    assert (made.labels(0) == made.labels(0)).all()


def test_scenes_without_labels_are_unknown() -> None:
    scene = Scene("a", ground(), np.ones((160, 160), bool), SIX, 10.0, "x")
    assert (ViewGenerator(prepare_scenes([scene], SPEC, classes=3), SPEC, AugmentSettings(), 0).labels(1) == -1).all()


def test_bands_without_light_are_cut_as_they_are_or_refused() -> None:
    """Components of a cube have no wavelength, and values under zero: no light, cloud or instrument is simulated on them."""
    spec = InputSpec(bands=tuple(BandSpec(name=f"pc{i}") for i in range(6)), dtype="float32", tile=64)
    scene = ViewScene("a", ground() - 0.2, np.ones((160, 160), bool), 10.0)
    for asked in (
        AugmentSettings(),
        AugmentSettings(plain=1.0, changes=0.5),
        AugmentSettings(plain=1.0, materials=0.5),
    ):
        with pytest.raises(RequestError, match=r"'pc0' has no wavelength.*plain: 1"):
            ViewGenerator([scene], spec, asked, 0)
    make = ViewGenerator([scene], spec, AugmentSettings(plain=1.0), 0)
    assert min(make(i).min() for i in range(4)) < -0.1
