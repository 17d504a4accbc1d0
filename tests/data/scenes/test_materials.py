"""Materials laid into scenes: the table's own sanity, what the air adds, and that clouds, other views and labels are left."""

import numpy as np
import pytest

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.scenes.augment import AugmentSettings, ViewGenerator, ViewScene
from rsedge.data.scenes.changes import LIMITS, Seen
from rsedge.data.scenes.fractal import FractalBank
from rsedge.data.scenes.materials import laid, materials, through_clear_air
from rsedge.data.sets.scene_sources import SIX

WAVELENGTHS = np.array([WAVELENGTHS_NM[n] for n in SIX])
SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, wavelength_nm=w, scale=1e-4, nodata=0) for n, w in zip(SIX, WAVELENGTHS, strict=True)),
    tile=48,
)
SEEN = Seen(WAVELENGTHS, 20.0, FractalBank(0, size=64, count=2))
BLUE, GREEN, RED, NIR, SWIR16, SWIR22 = range(6)


@pytest.mark.parametrize("lightness", [0.0, 0.5, 1.0])
def test_materials_look_as_they_are_known_to(lightness: float) -> None:
    seen = {name: row.spectrum(WAVELENGTHS, lightness) for name, row in materials().items()}
    assert all(s.min() >= 0 and s.max() <= 1 for s in seen.values())
    snow, forest, water, burnt = (seen[n] for n in ("snow", "dark-forest", "turbid-water", "burnt"))
    assert snow[GREEN] > 0.6 and (snow[GREEN] - snow[SWIR16]) / (snow[GREEN] + snow[SWIR16]) > 0.4
    assert forest[[BLUE, RED]].max() < 0.03 and forest[NIR] > 5 * forest[RED]
    assert water[SWIR16] < 0.01 and water[GREEN] > water[NIR]
    assert burnt[SWIR22] > burnt[NIR] > burnt[BLUE]
    assert seen["bright-desert"][RED] > 3 * seen["wet-soil"][RED]


@pytest.mark.parametrize("name", list(materials()))
def test_every_row_says_where_it_comes_from(name: str) -> None:
    row = materials()[name]
    assert row.what and len(row.source) > 30 and (np.diff(row.nm) > 0).all()
    assert row.dark.shape == row.bright.shape == row.nm.shape


def test_clear_air_is_blue_over_dark_ground_and_takes_from_bright_ground() -> None:
    dark, bright = (through_clear_air(np.full(6, r), WAVELENGTHS, 40.0) for r in (0.01, 0.9))
    # Rayleigh reflectance at 490 nm is some 0.05, in the infrared next to nothing.
    assert 0.03 < dark[BLUE] - 0.01 < 0.08 and dark[SWIR22] == pytest.approx(0.01, abs=1e-3)
    assert (np.diff(dark) < 0).all() and bright[BLUE] < 0.9
    assert through_clear_air(np.full(6, 0.01), WAVELENGTHS, 70.0)[BLUE] > dark[BLUE]


def test_what_is_laid_leaves_clouds_and_keeps_relief() -> None:
    rng = np.random.default_rng(0)
    image = (0.08 * rng.uniform(0.8, 1.2, (1, 48, 48)) * np.ones((6, 1, 1))).astype(np.float32)
    image[:, :16] = 0.7
    whole = 0
    for seed in range(12):
        out, cover = laid(image, SEEN, np.random.default_rng(seed), toa=True)
        assert (cover[:16] == 0).all() and cover.max() <= 1 and out.dtype == np.float32
        assert LIMITS[0] <= out.min() and out.max() <= LIMITS[1]
        if cover[16:].min() == 1:
            whole += 1
            assert np.corrcoef(out[:, 20:].mean(0).ravel(), image[0, 20:].ravel())[0, 1] > 0.3
    assert 2 < whole < 11


def views(materials_in: float, classes: int = 0) -> ViewGenerator:
    image = np.random.default_rng(5).uniform(0.05, 0.1, (6, 96, 96)).astype(np.float32)
    image = np.concatenate([image, np.ones((classes, 96, 96), np.float32)])
    return ViewGenerator(
        [ViewScene("a", image, np.ones((96, 96), bool), 10.0)], SPEC,
        AugmentSettings(plain=0.0, mix=0.0, clouds=0.0, materials=materials_in), 3,
    )  # fmt: skip


def test_views_without_a_material_stay_as_they_were_and_covered_ground_has_no_label() -> None:
    without, some = views(0.0), views(0.5, classes=1)
    same = [np.array_equal(without(i), some(i)) for i in range(16)]
    known = [(some.labels(i) >= 0).mean() for i in range(16)]
    assert 3 < sum(same) < 13
    assert same == [share == 1 for share in known] and min(known) < 0.1
