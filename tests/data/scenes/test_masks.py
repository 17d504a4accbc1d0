"""Missing pixels of every kind that GeoTIFFs know are missing alike in training, calibration and flight."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.physical_scene import read_physical
from rsedge.data.sets.scene_files import read_scene

NAMES, SIZE = ("red", "nir"), 16
SPEC = InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0.0, mean=0.2) for n in NAMES), tile=SIZE)
KINDS = ("nodata", "nan", "mask", "msk", "alpha", "zero")

Kind = str
Mask = npt.NDArray[np.bool_]


def write(path: Path, kinds: set[Kind], dtype: str, order: list[str], seed: int) -> Mask:
    """A scene with a band ``other`` and maybe an alpha band among the model's; gives the pixels that must be missing."""
    rng = np.random.default_rng(seed)
    names = [n for n in order if n != "alpha" or "alpha" in kinds]
    scale = 1.0 if dtype == "uint16" else 1e-4
    values = {n: rng.integers(500, 9000, (SIZE, SIZE)).astype(np.float64) * scale for n in names}
    truth = np.zeros((SIZE, SIZE), dtype=bool)

    def spots() -> Mask:
        return rng.random((SIZE, SIZE)) < 0.1

    nodata = None
    if "nodata" in kinds:
        nodata = 60000.0 if dtype == "uint16" else -9999.0
        for n in names[: names.index("nir") + 1]:
            here = spots()
            values[n][here] = nodata
            truth |= here if n in NAMES else False
    if "nan" in kinds and dtype == "float32":
        here = spots()
        values["red"][here] = np.nan
        truth |= here
    if "zero" in kinds and dtype == "uint16":
        here = spots()
        for n in NAMES:
            values[n][here] = 0
        truth |= here
    if "alpha" in kinds:
        here = spots()
        values["alpha"] = np.where(here, 0.0, 255.0)
        truth |= here
    profile: dict[str, Any] = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10), "nodata": nodata}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="mask" in kinds),
        rasterio.open(
            path, "w", driver="GTiff", count=len(names), height=SIZE, width=SIZE, dtype=dtype, **profile
        ) as f,
    ):
        f.colorinterp = [ColorInterp.alpha if n == "alpha" else ColorInterp.undefined for n in names]
        for i, n in enumerate(names, start=1):
            f.write(values[n].astype(dtype), i)
            if n != "alpha":
                f.set_band_description(i, n)
        if {"mask", "msk"} & kinds:
            here = spots()
            f.write_mask(~here)
            truth |= here
    return truth


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.sets(st.sampled_from(KINDS)),
    dtype=st.sampled_from(["uint16", "float32"]),
    order=st.permutations(["red", "nir", "other", "alpha"]),
    seed=st.integers(0, 999),
)
def test_the_same_pixels_are_missing_through_all_doors(
    kinds: set[Kind], dtype: str, order: list[str], seed: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.tif"
        truth = write(path, kinds, dtype, order, seed)
        options = {"nan_nodata": "nan" in kinds}
        with SceneReader(path, SPEC, **options) as reader:
            flown, missing = reader.read(0, 0, SIZE, SIZE)
        assert np.array_equal(missing, truth)
        for training in (True, False):
            scene = read_scene(path, SPEC, training=training, **options)
            assert np.array_equal(~scene.valid, truth)
            dn = np.where(scene.valid, SPEC.to_dn(scene.image), SPEC.missing_dn()[:, None, None])
            assert np.array_equal(dn, flown)
        more = {"scale": 1e-4} if dtype == "uint16" else {}
        loose = read_physical(path, **options, **more, nodata=0.0 if dtype == "uint16" else None)
        samples = Samples("s", loose.image[None], loose.bands, "CHW", "")
        assert np.array_equal(samples.dn(SPEC)[0], flown)


def test_a_band_called_alpha_that_is_named_otherwise_is_data(tmp_path: Path) -> None:
    path = tmp_path / "naip.tif"
    values = np.full((4, SIZE, SIZE), 90, np.uint8)
    values[3, :4] = 0
    where = {"crs": "EPSG:26914", "transform": from_origin(5e5, 5.4e6, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", count=4, height=SIZE, width=SIZE, dtype="uint8", **where) as f:
        f.write(values)  # GDAL calls the fourth band of bytes alpha
    with rasterio.open(path) as f:
        assert f.colorinterp[3] == ColorInterp.alpha
    options = {"bands": ["red", "green", "blue", "nir"], "scale": 1 / 700}
    with SceneReader(path, SPEC, **options) as reader:
        assert not reader.read(0, 0, SIZE, SIZE)[1].any()
    rgb = InputSpec(
        bands=tuple(BandSpec(name=n, scale=1 / 700) for n in ("red", "green", "blue")), dtype="uint8", tile=SIZE
    )
    with SceneReader(path, rgb, bands=["red", "green", "blue"]) as reader:
        assert reader.read(0, 0, SIZE, SIZE)[1].sum() == 4 * SIZE


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("fill", [-30000.0, -28672.0, -999.0, -99.0, -1.0, 255.0, 9999.0, 32767.0])
def test_a_value_that_every_band_of_some_pixels_holds_is_told_and_the_advice_works(
    tmp_path: Path, dtype: str, fill: float
) -> None:
    from rsedge.data.errors import RequestError

    path, where = tmp_path / "s.tif", {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10)}
    values = np.random.default_rng(0).uniform(0.02, 0.4, (2, 64, 64)) * (1.0 if dtype == "float32" else 1e4)
    values[:, 0, :12] = fill
    with rasterio.open(path, "w", driver="GTiff", count=2, height=64, width=64, dtype=dtype, **where) as f:
        f.write(values.astype(dtype))
        f.descriptions = NAMES
    try:
        with SceneReader(path, SPEC) as reader:
            told = " ".join(reader.warnings)
    except RequestError as error:
        told = str(error)
    physical = fill if dtype == "float32" else fill * 1e-4
    if 0 <= physical < 2.5:
        assert not told  # a dozen of plausible pixels are no border
        return
    assert f"hold {fill:.12g}" in told
    advised = float(re.split("[,;]", told.split("--nodata ")[1])[0])
    with SceneReader(path, SPEC, nodata=advised) as reader:
        assert reader.read(0, 0, 64, 64)[1].sum() == 12 and not reader.warnings


@pytest.mark.parametrize("border", [0.0, 1.0])
def test_a_border_that_nobody_declares_is_told(tmp_path: Path, border: float) -> None:
    path, where = tmp_path / "s.tif", {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10)}
    values = np.random.default_rng(0).uniform(0.02, 0.4, (2, 64, 64)).astype(np.float32)
    values[:, :8] = border
    with rasterio.open(path, "w", driver="GTiff", count=2, height=64, width=64, dtype="float32", **where) as f:
        f.write(values)
        f.descriptions = NAMES
    with SceneReader(path, SPEC) as reader:
        assert f"512 of the pixels looked at hold {border:g} in every band" in " ".join(reader.warnings)
    grey = np.repeat(np.random.default_rng(0).integers(1, 256, (1, 64, 64)), 2, 0).astype(np.uint16)
    with rasterio.open(path, "w", driver="GTiff", count=2, height=64, width=64, dtype="uint16", **where) as f:
        f.write(grey)  # a grey picture has equal bands everywhere, and no value stands out
        f.descriptions = NAMES
    with SceneReader(path, SPEC, scale=1 / 400) as reader:
        assert not reader.warnings


@pytest.mark.parametrize("fill", [-9999.0, float(np.finfo(np.float32).min)])
def test_an_undeclared_fill_value_is_refused_and_the_advice_works(tmp_path: Path, fill: float) -> None:
    from rsedge.data.errors import RequestError

    path = tmp_path / "s.tif"
    values = np.full((2, 64, 64), 0.3, np.float32)
    values[0, 0, 0] = fill
    where = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", count=2, height=64, width=64, dtype="float32", **where) as f:
        f.write(values)
        f.descriptions = NAMES
    with pytest.raises(RequestError, match="1 of the pixels") as caught:
        SceneReader(path, SPEC)
    advised = float(str(caught.value).split("--nodata ")[1].split(",")[0])
    with SceneReader(path, SPEC, nodata=advised) as reader:
        assert reader.read(0, 0, 64, 64)[1].sum() == 1
