"""Pairs of dates as samples and as one scene: what is cut, what is unknown, which grids are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.geotiff_dates import DatesReader, one_date
from rsedge.data.sets.sample_sources import load_samples

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0) for n in ("nir", "red")), layout="TCHW", frames=2, tile=16
)


def raster(
    path: Path, values: np.ndarray, nodata: float | None = 0, east: float = 0.0, crs: str = "EPSG:32633"
) -> Path:
    values = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype,
        nodata=nodata, crs=crs, transform=from_origin(5e5 + east, 5e6, 10, 10),
    ) as file:  # fmt: skip
        file.write(values)
    return path


def dates(folder: Path, height: int = 40, width: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).integers(1, 9000, (2, 2, height, width)).astype(np.uint16)
    values[1, :, 3, 4] = 0
    labels = np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)
    labels[0, 0] = 255
    for name, one in (("before", values[0]), ("after", values[1])):
        raster(folder / f"{name}.tif", one)
    raster(folder / "labels.tif", labels, None)
    return values, labels


def load(folder: Path, count: int = 1, **more: Any) -> Any:
    pair = {"before": "before.tif", "after": "after.tif", "labels": "labels.tif"}
    options = {"pairs": [pair] * count, "tile": 16, "bands": ["red", "nir"], "scale": 1e-4, **more}
    return load_samples("pairs", folder, **options)


def test_tiles_of_both_dates_with_their_labels(tmp_path: Path) -> None:
    values, labels = dates(tmp_path)
    found = load(tmp_path)
    assert found.values.shape == (2 * 3, 2, 2, 16, 16) and found.layout == "TCHW" and found.classes[1] == "change"
    assert found.bands == ("red", "nir") and found.gsd_m == pytest.approx(10, rel=1e-3)
    assert np.array_equal(found.labels[4], labels[16:32, 16:32])
    dn = found.dn(SPEC)
    # Bands come by name, missing pixels as nodata.
    assert np.array_equal(dn[0, 0, ::-1], values[0, :, :16, :16])
    assert (dn[0, 1, :, 3, 4] == 0).all() and (dn[0, 0, :, 3, 4] > 0).all()


def test_the_sensor_is_known_as_far_as_it_is_said(tmp_path: Path) -> None:
    dates(tmp_path)
    assert load(tmp_path).sensors == () and load(tmp_path, sensor="landsat-8").sensors == ("landsat-8",)
    with rasterio.open(tmp_path / "after.tif", "r+") as file:
        file.update_tags(SENSOR_ID="ETM")
    assert load(tmp_path).sensors == ("landsat-7",)
    assert load(tmp_path).take(np.arange(2)).sensors == ("landsat-7",)


def test_a_single_pair_is_held_out_by_blocks_and_several_whole(tmp_path: Path) -> None:
    dates(tmp_path, 16 * 5, 16 * 5)
    assert sorted(set(load(tmp_path).group)) == ["pair 0 0-0", "pair 0 0-1", "pair 0 1-0", "pair 0 1-1"]
    assert load(tmp_path).cells[[0, 5, 24]].tolist() == [[0, 0, 0], [0, 1, 0], [0, 4, 4]]
    assert sorted(set(load(tmp_path, count=2).group)) == ["pair 0", "pair 1"] and load(tmp_path, count=2).cells is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: raster(f / "after.tif", np.ones((2, 40, 49), np.uint16)),
            r"after\.tif: 40x49 pixels, the scene has",
        ),
        (lambda f: raster(f / "after.tif", np.ones((2, 40, 50), np.uint16), east=10), "1.00 pixels off the scene's"),
        (lambda f: raster(f / "after.tif", np.ones((2, 40, 50), np.uint16), crs="EPSG:32634"), "CRS EPSG:32634"),
        (lambda f: raster(f / "after.tif", np.ones((3, 40, 50), np.uint16)), "names 2 bands, the file has 3"),
        (
            lambda f: raster(f / "labels.tif", np.full((40, 50), 7, np.uint8), None),
            r"no class \(0 to 1\): 7; say what they are: ",
        ),
        (lambda f: (f / "labels.tif").unlink(), r"labels\.tif: no such file"),
    ],
)
def test_dates_that_do_not_fit_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    dates(tmp_path)
    change(tmp_path)
    with pytest.raises(RequestError, match=message):
        load(tmp_path)


def test_options_are_checked(tmp_path: Path) -> None:
    dates(tmp_path)
    with pytest.raises(RequestError, match="tile: Field required"):
        load_samples("pairs", tmp_path, pairs=[{"before": "before.tif", "after": "after.tif"}])
    with pytest.raises(RequestError, match="smaller than the tile of 64"):
        load(tmp_path, tile=64)
    both = [
        {"before": "before.tif", "after": "after.tif"},
        {"before": "before.tif", "after": "after.tif", "labels": "labels.tif"},
    ]
    with pytest.raises(RequestError, match="give them for every pair or for none"):
        load(tmp_path, pairs=both)
    assert load(tmp_path, pairs=both[:1]).labels is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 10), st.integers(1, 10))
def test_any_window_of_several_dates_is_that_of_each(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "window"
    if not folder.exists():
        folder.mkdir()
        dates(folder)
    readers = [
        SceneReader(folder / f"{n}.tif", one_date(SPEC), bands=["red", "nir"], any_gsd=True)
        for n in ("before", "after")
    ]
    joined = DatesReader(readers, SPEC)
    dn, missing = joined.read(row, col, height, width)
    parts = [r.read(row, col, height, width) for r in readers]
    assert np.array_equal(dn.reshape(2, 2, height, width), np.stack([p[0] for p in parts]))
    assert np.array_equal(missing, parts[0][1] | parts[1][1])
    for reader in readers:
        reader.close()


def test_another_number_of_dates_is_refused(tmp_path: Path) -> None:
    dates(tmp_path)
    with (
        SceneReader(tmp_path / "before.tif", one_date(SPEC), bands=["red", "nir"]) as reader,
        pytest.raises(RequestError, match=r"takes 2 date\(s\), given 1 .*see --after"),
    ):
        DatesReader([reader], SPEC)
