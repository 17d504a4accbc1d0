"""Scenes by window: bands, units, missing pixels, GSD; and everything that must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.scenes.geotiff import SceneReader

NAMES = ("blue", "green", "red", "nir")


def contract(names: tuple[str, ...] = NAMES, dtype: Any = "uint16", **more: Any) -> InputSpec:
    more.setdefault("gsd_range_m", (8.0, 70.0))
    bands = tuple(BandSpec(name=n, scale=1e-4, nodata=0.0, mean=0.2, std=0.1) for n in names)
    return InputSpec(bands=bands, dtype=dtype, tile=32, **more)


def scene(path: Path, values: np.ndarray, names: tuple[str | None, ...] | None = NAMES, **profile: Any) -> Path:
    tags, scales, offsets = profile.pop("tags", {}), profile.pop("scales", None), profile.pop("offsets", None)
    profile = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 10, 10), **profile}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **profile
    ) as f:
        f.write(values)
        f.update_tags(**tags)
        for i, name in enumerate(names or (), start=1):
            if name:
                f.set_band_description(i, name)
        if scales is not None:
            f.scales = scales
        if offsets is not None:
            f.offsets = offsets
    return path


def dn_values(height: int = 40, width: int = 50, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 12000, size=(channels, height, width)).astype(np.uint16)


def read(path: Path, spec: InputSpec | None = None, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    with SceneReader(path, spec or contract(), **options) as reader:
        return reader.read(0, 0, reader.height, reader.width)


def refusal(path: Path, spec: InputSpec | None = None, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read(path, spec, **options)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_digital_numbers_pass_unchanged(tmp_path: Path) -> None:
    values = dn_values()
    dn, missing = read(scene(tmp_path / "s.tif", values))
    assert dn.dtype == np.uint16 and np.array_equal(dn, values) and not missing.any()


def test_windows_equal_the_whole(tmp_path: Path) -> None:
    values = dn_values()
    with SceneReader(scene(tmp_path / "s.tif", values), contract()) as reader:
        assert np.array_equal(reader.read(7, 11, 13, 17)[0], values[:, 7:20, 11:28])


@pytest.mark.parametrize("order", [(3, 1, 0, 2), (2, 3, 1, 0)])
def test_shuffled_bands_are_matched_by_name(tmp_path: Path, order: tuple[int, ...]) -> None:
    values = dn_values()
    names = tuple(NAMES[i] for i in order)
    by_description = scene(tmp_path / "a.tif", values[list(order)], names)
    unnamed = scene(tmp_path / "b.tif", values[list(order)], None)
    assert np.array_equal(read(by_description)[0], values)
    assert np.array_equal(read(unnamed, bands=list(names))[0], values)


def test_extra_bands_are_left_out(tmp_path: Path) -> None:
    values = dn_values(channels=6)
    path = scene(tmp_path / "s.tif", values, ("coastal", "blue", "green", "red", None, "nir"))
    assert np.array_equal(read(path)[0], values[[1, 2, 3, 5]])
    given = ["-", "blue", "green", "red", "-", "nir"]
    assert np.array_equal(read(path, bands=given)[0], values[[1, 2, 3, 5]])


def test_numbered_bands_only_where_the_sensor_is_known(tmp_path: Path) -> None:
    values, numbered = dn_values(), ("B2", "B3", "B4", "B8")
    said = scene(tmp_path / "said.tif", values, numbered, tags={"SPACECRAFT_NAME": "Sentinel-2A"})
    assert np.array_equal(read(said)[0], values)
    shown = scene(tmp_path / "shown.tif", values, ("B02", "B03", "B04", "B08"))
    assert np.array_equal(read(shown)[0], values)
    landsat = scene(tmp_path / "landsat.tif", values, ("B02", "B03", "B04", "B08"), tags={"SENSOR": "OLI"})
    assert "'nir' is missing" in refusal(landsat)
    silent = scene(tmp_path / "silent.tif", values, numbered)
    assert refusal(silent).endswith("--sensor sentinel-2")
    assert np.array_equal(read(silent, sensor="sentinel-2")[0], values)


def test_band_refusals_name_the_bands_and_the_fix(tmp_path: Path) -> None:
    values = dn_values()
    text = refusal(scene(tmp_path / "missing.tif", values, ("blue", "green", "red", "swir16")))
    assert "'nir' is missing" in text and "swir16" in text and "--bands" in text
    assert "2 times" in refusal(scene(tmp_path / "twice.tif", values, ("blue", "green", "red", "red")))
    text = refusal(scene(tmp_path / "unnamed.tif", values, None))
    assert "no descriptions" in text and "--bands blue,green,red,nir" in text
    assert "names 2 bands" in refusal(scene(tmp_path / "count.tif", values), bands=["blue", "green"])
    assert "missing" in refusal(scene(tmp_path / "wrong.tif", values), bands=["a", "b", "c", "d"])


@pytest.mark.parametrize(
    "written",
    [
        ("Red", "Grn", "Blu", "NIR"),
        ("rouge-red", "greenish", "bluish", "nir"),
        ("Rot", "Gruen", "Blau", "NIR"),
    ],
)
def test_names_in_another_order_are_read_or_the_advice_keeps_their_order(
    tmp_path: Path, written: tuple[str, ...]
) -> None:
    values = dn_values()
    path = scene(tmp_path / "s.tif", values[[2, 1, 0, 3]], written)
    try:
        found = read(path)[0]
    except RequestError as error:
        found = read(path, bands=str(error).split("--bands ")[1].split(","))[0]
    assert np.array_equal(found, values)


def test_eight_bands_with_two_greens(tmp_path: Path) -> None:
    values = dn_values(channels=8)
    names = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
    assert np.array_equal(read(scene(tmp_path / "s.tif", values, names))[0], values[[1, 3, 5, 7]])


def test_float_reflectance_becomes_digital_numbers(tmp_path: Path) -> None:
    values = dn_values()
    path = scene(tmp_path / "s.tif", (values * 1e-4).astype(np.float32))
    assert np.array_equal(read(path)[0], values)


def test_float_digital_numbers_are_refused_until_the_scale_is_given(tmp_path: Path) -> None:
    values = dn_values()
    path = scene(tmp_path / "s.tif", values.astype(np.float32))
    assert "--scale 0.0001" in refusal(path)
    assert np.array_equal(read(path, scale=1e-4)[0], values)


def test_tags_are_honoured(tmp_path: Path) -> None:
    values = dn_values()
    path = scene(tmp_path / "s.tif", (values + 1000).astype(np.uint16), scales=(1e-4,) * 4, offsets=(-0.1,) * 4)
    assert np.array_equal(read(path)[0], values)
    partly = scene(tmp_path / "p.tif", values, scales=(1e-4, 1e-4, 1.0, 1.0))
    assert "red, nir" in refusal(partly)


def test_bytes_are_refused_until_the_scale_is_given(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 255, size=(4, 20, 20)).astype(np.uint8)
    path = scene(tmp_path / "s.tif", values)
    text = refusal(path)
    assert "uint8" in text and "--scale" in text
    expected = np.rint(values / 255 * 1e4).astype(np.uint16)
    assert np.array_equal(read(path, scale=1 / 255)[0], expected)


def test_other_units_do_not_slip_through(tmp_path: Path) -> None:
    far = np.full((4, 20, 20), 60000, dtype=np.uint16)
    assert "6" in refusal(scene(tmp_path / "far.tif", far))
    percent = np.full((4, 20, 20), 35.0, dtype=np.float32)
    assert "35" in refusal(scene(tmp_path / "percent.tif", percent))
    undeclared = dn_values().astype(np.int16)
    undeclared[:, :20] = -9999
    assert "--nodata -9999" in refusal(scene(tmp_path / "fill.tif", undeclared))
    assert not read(tmp_path / "fill.tif", nodata=-9999)[1][20:].any()
    assert not read(scene(tmp_path / "declared.tif", undeclared, nodata=-9999))[1][20:].any()


def test_wider_integers_saturate_and_stay_seen(tmp_path: Path) -> None:
    values = dn_values().astype(np.int16)
    values[:, 0, 0] = -5
    dn, missing = read(scene(tmp_path / "s.tif", values))
    assert (dn[:, 0, 0] == 1).all() and not missing.any()


@pytest.mark.parametrize("nodata", [0, 65535])
def test_declared_nodata_becomes_the_contracts(tmp_path: Path, nodata: int) -> None:
    values = dn_values()
    values[:, :3, :5] = nodata
    values[2, 10, 10] = nodata
    dn, missing = read(scene(tmp_path / "s.tif", values, nodata=nodata))
    assert missing[:3, :5].all() and missing[10, 10] and missing.sum() == 16
    assert (dn[:, missing] == 0).all()


def test_undeclared_zero_is_missing_only_in_all_bands(tmp_path: Path) -> None:
    values = dn_values()
    values[:, 0, 0] = 0
    values[1, 5, 5] = 0
    dn, missing = read(scene(tmp_path / "s.tif", values))
    assert missing[0, 0] and missing.sum() == 1 and dn[1, 5, 5] == 0


def test_nan_nodata_and_stray_nan(tmp_path: Path) -> None:
    values = (dn_values() * 1e-4).astype(np.float32)
    values[:, :2, :2] = np.nan
    declared = scene(tmp_path / "declared.tif", values, nodata=float("nan"))
    assert read(declared)[1].sum() == 4
    values[2, 9, 9] = np.inf
    stray = scene(tmp_path / "stray.tif", values)
    text = refusal(stray)
    assert "4 in band 'blue'" in text and "5 in band 'red'" in text and "--nan-nodata" in text
    dn, missing = read(stray, nan_nodata=True)
    assert missing.sum() == 5 and (dn[:, missing] == 0).all()


def test_all_nodata_is_refused(tmp_path: Path) -> None:
    zeros = np.zeros((4, 20, 20), dtype=np.uint16)
    assert "every pixel is nodata" in refusal(scene(tmp_path / "a.tif", zeros))
    nan = np.full((4, 20, 20), np.nan, dtype=np.float32)
    assert "every pixel is nodata" in refusal(scene(tmp_path / "b.tif", nan, nodata=float("nan")))
    assert "every pixel is nodata" in refusal(scene(tmp_path / "c.tif", nan), nan_nodata=True)


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", from_origin(500000, 5400000, 10, 10), 10.0),
        ("EPSG:32632", from_origin(500000, 5400000, 30, 30), 30.0),
        ("EPSG:4326", from_origin(-3.0, 37.0, 1e-4, 1e-4), 11.12 * np.cos(np.deg2rad(37)) ** 0.5),
        ("EPSG:3857", from_origin(1e6, 8.4e6, 20, 20), 20 * 0.5),
        ("EPSG:2263", from_origin(987000, 200000, 100, 100), 30.48),
    ],
)
def test_gsd_on_the_ground(tmp_path: Path, crs: str, transform: Any, metres: float) -> None:
    path = scene(tmp_path / "s.tif", dn_values(), crs=crs, transform=transform)
    with SceneReader(path, contract()) as reader:
        assert reader.gsd_m == pytest.approx(metres, rel=0.006)


def test_gsd_outside_the_range(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif", dn_values(), transform=from_origin(500000, 5400000, 0.5, 0.5))
    text = refusal(path)
    assert "0.5 m" in text and "8 to 70" in text and "--any-gsd" in text
    assert not read(path, any_gsd=True)[1].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -9999.0, 65536.0, 0.5])
def test_a_nodata_value_that_the_file_cannot_hold_is_refused(tmp_path: Path, value: float) -> None:
    text = refusal(scene(tmp_path / "s.tif", dn_values()), nodata=value)
    assert "would mark no pixel" in text and "uint16" in text and "0 to 65535" in text


def test_no_crs_warns_and_goes_on(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif", dn_values(), crs=None)
    with SceneReader(path, contract()) as reader:
        assert reader.gsd_m is None and "coordinate reference" in " ".join(reader.warnings)


def test_no_file_no_raster_truncated(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.tif")
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    assert "not a raster" in refusal(text)
    whole = scene(tmp_path / "s.tif", dn_values(600, 600), compress="deflate")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(RequestError) as caught:
        read(cut)
    assert isinstance(caught.value, IntegrityError) or "not a raster" in str(caught.value)


def test_types_that_hold_no_radiometry_are_refused(tmp_path: Path) -> None:
    assert "complex" in refusal(scene(tmp_path / "c.tif", np.ones((4, 8, 8), dtype=np.complex64)))


def test_a_plane_system_without_a_place_on_earth_is_measured_by_its_unit(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif", dn_values(), crs='LOCAL_CS["mine",UNIT["foot",0.3048]]',
                 transform=from_origin(0, 0, 50, 50))  # fmt: skip
    with SceneReader(path, contract()) as reader:
        assert reader.gsd_m == pytest.approx(50 * 0.3048)


@pytest.mark.parametrize("value", [1e30, -1e30, 1e13])
def test_absurd_values_are_missing_and_counted(tmp_path: Path, value: float) -> None:
    values = (dn_values() * 1e-4).astype(np.float32)
    values[2, 9, :3] = value
    with SceneReader(scene(tmp_path / "s.tif", values), contract()) as reader:
        dn, missing = reader.read(0, 0, reader.height, reader.width)
        assert missing.sum() == 3 and missing[9, :3].all() and (dn[:, missing] == 0).all()
        assert any("3 pixels hold values beyond" in w for w in reader.warnings)
    values[2, 9:20] = value
    assert "lie outside" in refusal(scene(tmp_path / "many.tif", values))


@pytest.mark.parametrize("scale", [0.0, -1e-4, 1e300, float("nan"), float("inf")])
def test_scales_that_make_no_values_are_refused_as_tags_and_as_options(tmp_path: Path, scale: float) -> None:
    tagged = scene(tmp_path / "t.tif", dn_values(), scales=(scale,) * 4)
    assert "make no values" in refusal(tagged) and "--scale" in refusal(tagged)
    assert "must be positive" in refusal(scene(tmp_path / "s.tif", dn_values()), scale=scale)
    assert read(tagged, scale=1e-4)[0].any()


@pytest.mark.parametrize(
    "crs", ['LOCAL_CS["site",UNIT["metre",1]]', "EPSG:5800", "+proj=geos +h=35785831", "+proj=gnom +lat_0=90"]
)
def test_a_place_that_is_not_on_earth_gives_pixels_and_no_traceback(tmp_path: Path, crs: str) -> None:
    path = scene(tmp_path / "s.tif", dn_values(), crs=crs, transform=from_origin(5e8, 5.4e8, 10, 10))
    with SceneReader(path, contract(), any_gsd=True) as reader:
        assert not reader.read(0, 0, 8, 8)[1].any()


@pytest.mark.parametrize(("edge", "windows"), [(512, 4), (2560, 8)])
def test_a_look_at_the_values_takes_few_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge: int, windows: int
) -> None:
    """Small scenes are looked at as a whole, of others samples."""
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    path = scene(tmp_path / "scene.tif", np.full((4, edge, edge), 1234, "uint16"), **tiled)
    read, sizes = SceneReader._read_raw, list[int]()

    def counted(self: SceneReader, row: int, col: int, height: int, width: int) -> Any:
        sizes.append(height * width)
        return read(self, row, col, height, width)

    monkeypatch.setattr(SceneReader, "_read_raw", counted)
    SceneReader(path, contract()).close()
    assert sizes == [256 * 256] * windows
