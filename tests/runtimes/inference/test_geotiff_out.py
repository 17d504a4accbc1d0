"""What rasters carry beside values: palette, statistics, provenance, places, overviews; and probabilities as bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

import rsedge
from rsedge.data.scenes.points import Points
from rsedge.runtimes.inference.raster_parts import as_bytes
from rsedge.runtimes.inference.statistics import Statistics, of_counts
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> rsedge.Bundle:
    return rsedge.load(tiny.make_bundle(tmp_path_factory.mktemp("out") / "b", SPEC))


def rpc() -> RPC:
    return RPC(
        height_off=0, height_scale=1, lat_off=48, lat_scale=1, line_den_coeff=[1, *[0.0] * 19],
        line_num_coeff=[0, 0, -1, *[0.0] * 17], line_off=40.0, line_scale=40.0, long_off=11, long_scale=1,
        samp_den_coeff=[1, *[0.0] * 19], samp_num_coeff=[0, 1, *[0.0] * 18], samp_off=30.0, samp_scale=30.0,
    )  # fmt: skip


def test_a_map_says_what_it_is(opened: rsedge.Bundle, tmp_path: Path) -> None:
    scene = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 70, 60), tiny.NAMES)
    record = opened.predict(scene, tmp_path / "m.tif", probabilities=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        values, tags, found = file.read(1), file.tags(), file.tags(1)
        assert file.colormap(1)[255] == (0, 0, 0, 0) and file.colormap(1)[1] == (0xF4, 0xF4, 0xF4, 255)  # cloud
    assert tags["rsedge_manifest_sha256"] == opened.opened.manifest_sha256 and tags["rsedge_verdict"] == "no gates"
    assert tags["TIFFTAG_SOFTWARE"] == f"rsedge {rsedge.__version__}" and tags["class_2"] == "shadow"
    seen = values[values != 255]
    for name, wanted in (("MEAN", seen.mean()), ("STDDEV", seen.std()), ("MAXIMUM", seen.max())):
        assert float(found[f"STATISTICS_{name}"]) == pytest.approx(wanted)
    assert float(found["STATISTICS_VALID_PERCENT"]) == pytest.approx(100 - record["nodata_pixels"] / 42)
    with rasterio.open(tmp_path / "p.tif") as file:
        shares = file.read()
        assert float(file.tags(3)["STATISTICS_MEAN"]) == pytest.approx(np.nanmean(shares[2]), rel=1e-6)


def test_cog_and_bytes(opened: rsedge.Bundle, tmp_path: Path) -> None:
    scene = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 520, 60), tiny.NAMES)
    opened.predict(scene, tmp_path / "m.tif", probabilities=tmp_path / "p.tif")
    opened.predict(
        scene, tmp_path / "cog.tif", probabilities=tmp_path / "bytes.tif", cog=True, probability_type="uint8"
    )
    with rasterio.open(tmp_path / "m.tif") as plain, rasterio.open(tmp_path / "cog.tif") as cog:
        assert np.array_equal(plain.read(), cog.read()) and plain.colormap(1) == cog.colormap(1)
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and cog.overviews(1) == [2]
        assert plain.tags(1) == cog.tags(1) and cog.tags()["rsedge_bundle"] == "tiny" and cog.nodata == 255
        assert set(np.unique(cog.read(1, out_shape=(260, 30)))) <= {0, 1, 2, 255}
        assert (cog.crs, cog.transform, cog.descriptions) == (plain.crs, plain.transform, plain.descriptions)
    with rasterio.open(tmp_path / "p.tif") as exact, rasterio.open(tmp_path / "bytes.tif") as file:
        assert file.dtypes == ("uint8",) * 3 and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        steps = file.read(masked=True)
        shares = steps * file.scales[0] + file.offsets[0]
        assert np.abs(shares - exact.read()).max() <= 0.5 / 254 + 1e-6
        assert np.array_equal(steps.mask, np.isnan(exact.read()))
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.aux.xml"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1, width=32), st.just(float("nan"))), min_size=1, max_size=40))
def test_bytes_are_the_nearest_step(values: list[float]) -> None:
    shares = np.array(values, np.float32).reshape(1, 1, -1)
    steps = as_bytes(shares)
    assert np.array_equal(steps == 255, np.isnan(shares))
    assert np.nanmax(np.abs(steps / 254 - shares), initial=0, where=~np.isnan(shares)) <= 0.5 / 254 + 1e-6


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=6), nodata=st.integers(0, 9))
def test_counts_and_pixels_have_the_same_statistics(counts: list[int], nodata: int) -> None:
    known = np.zeros(256, np.int64)
    known[: len(counts)], known[255] = counts, nodata
    pixels = np.repeat(np.arange(256), known).astype(np.uint8)
    added = Statistics(1)
    added.add(pixels.reshape(1, 1, -1))
    assert of_counts(known).tags(0) == added.tags(0) and bool(added.tags(0)) is (sum(counts) > 0)


def test_control_points_and_rpc_are_kept(opened: rsedge.Bundle, tmp_path: Path) -> None:
    points = [
        GroundControlPoint(r, c, 11 + c / 1000, 48 - r / 1000, 0.0) for r, c in ((0, 0), (0, 60), (80, 0), (80, 60))
    ]
    scene, image = tmp_path / "s.tif", tiny.random_scene(SPEC, 80, 60)
    profile = {"driver": "GTiff", "count": 4, "height": 80, "width": 60, "dtype": "uint16"}
    for name, more in (("gcp", {"gcps": points, "crs": "EPSG:4326"}), ("rpc", {"rpcs": rpc()})):
        scene = tmp_path / f"{name}.tif"
        with rasterio.open(scene, "w", **profile, **more) as file:
            file.write(image)
            file.descriptions = tiny.NAMES
        for cog in (False, True):
            with pytest.warns(UserWarning, match="which a raster made of it keeps"):
                opened.predict(scene, tmp_path / "m.tif", cog=cog)
            with rasterio.open(scene) as before, rasterio.open(tmp_path / "m.tif") as after:
                assert after.gcps[1] == before.gcps[1] and after.crs is None
                assert [(g.row, g.col, g.x, g.y) for g in after.gcps[0]] == [
                    (g.row, g.col, g.x, g.y) for g in before.gcps[0]
                ]
                assert (after.rpcs and after.rpcs.to_dict()) == (before.rpcs and before.rpcs.to_dict())


def test_places_on_a_finer_grid_are_the_same_places() -> None:
    found = Points((GroundControlPoint(4, 6, 1.0, 2.0),), "EPSG:4326", rpc()).on_grid(2)
    assert (found.gcps[0].row, found.gcps[0].col, found.gcps[0].x) == (8, 12, 1.0)
    assert (
        found.rpcs.line_off == 80.5
        and found.rpcs.line_scale == 80
        and found.rpcs.samp_num_coeff == rpc().samp_num_coeff
    )
    assert not Points() and Points().on_grid(2) == Points()


def test_an_alpha_of_any_band_is_a_mask(opened: rsedge.Bundle, bundle: Callable[..., Path], tmp_path: Path) -> None:
    image = tiny.random_scene(SPEC, 50, 40, hole=False)
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=7, height=50, width=40, dtype="uint16", crs="EPSG:32632",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5.4e6),
    ) as file:  # fmt: skip
        file.colorinterp = [rasterio.enums.ColorInterp.undefined] * 6 + [rasterio.enums.ColorInterp.alpha]
        file.descriptions = [*tiny.NAMES, "x", "y", ""]
        alpha = np.full((1, 50, 40), 65535, np.uint16)
        alpha[0, 5:9, 3:30] = 0
        file.write(np.concatenate([image, image[:2], alpha]))
    found = opened.predict(tmp_path / "s.tif")
    assert np.array_equal(found == 255, alpha[0] == 0)
