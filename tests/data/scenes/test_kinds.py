"""Kinds of scenes beside GeoTIFF: what they hold is what the reader gives, and what is wrong with them is said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.scenes.envi import EnviRaster, read_header, write_header
from rsedge.data.scenes.envi_place import place_fields
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.kinds import SCENE_KINDS, kind_of
from rsedge.data.scenes.raster_file import Transform, Window
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
TYPES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13}
AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
PLACE = "{UTM, 1, 1, 500000, 5400000, 10, 10, 32, North, WGS-84, units=Meters}"


def envi(path: Path, image: np.ndarray, order: str = "bsq", big: bool = False, offset: int = 0, **fields: str) -> Path:
    """A header and its data; returns the header's path."""
    kind = image.dtype.newbyteorder(">" if big else "<")
    path.write_bytes(b"x" * offset + image.transpose(AXES[order]).astype(kind).tobytes())
    rows = {
        "samples": image.shape[2], "lines": image.shape[1], "bands": image.shape[0], "header offset": offset,
        "data type": TYPES[str(image.dtype)], "interleave": order, "byte order": int(big),
        **{k.replace("_", " "): v for k, v in fields.items()},
    }  # fmt: skip
    header = path.with_suffix(".hdr")
    header.write_text("ENVI\n" + "".join(f"{k} = {v}\n" for k, v in rows.items() if v is not None))
    return header


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)), order=st.sampled_from(list(AXES)),
    kind=st.sampled_from(list(TYPES)), big=st.booleans(), offset=st.integers(0, 5), data=st.data(),
)  # fmt: skip
def test_envi_windows_are_what_is_in_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    shape: Any,
    order: str,
    kind: str,
    big: bool,
    offset: int,
    data: st.DataObject,
) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    header = envi(tmp_path_factory.mktemp("envi") / "a.img", image, order, big, offset)
    row, col = (data.draw(st.integers(0, n - 1)) for n in shape[1:])
    height, width = data.draw(st.integers(1, shape[1] - row)), data.draw(st.integers(1, shape[2] - col))
    bands = data.draw(st.lists(st.integers(1, shape[0]), min_size=1, unique=True))
    with EnviRaster(header) as file:
        found = file.read(bands, Window(col, row, width, height))
        assert found.dtype == kind and str(file.dtypes[0]) == kind
        assert np.array_equal(found, image[[b - 1 for b in bands], row : row + height, col : col + width])
    if image.nbytes + offset > 1:  # of less GDAL takes no file
        with rasterio.open(header.with_suffix(".img")) as file:
            assert np.array_equal(file.read(bands), image[[b - 1 for b in bands]])


@pytest.mark.parametrize(
    "place",
    [
        PLACE,
        "{UTM, 1, 1, 500000, 5400000, 10, 10, 33, South, WGS-84}",
        "{Geographic Lat/Lon, 1.5, 1.5, 11.25, 48.5, 0.001, 0.002, WGS-84, units=Degrees}",
        "{UTM, 1, 1, 500000, 5400000, 10, 10, 32, North, WGS-84, units=Meters, rotation=30}",
    ],
)
def test_envi_lies_where_gdal_sees_it(tmp_path: Path, place: str) -> None:
    header = envi(tmp_path / "a.img", np.ones((1, 3, 4), np.uint8), map_info=place)
    with EnviRaster(header) as ours, rasterio.open(tmp_path / "a.img") as theirs:
        assert rasterio.CRS.from_string(str(ours.crs)) == rasterio.CRS.from_epsg(theirs.crs.to_epsg())
        assert np.allclose(list(ours.transform), list(theirs.transform)[:6])


def test_a_scene_is_the_same_in_every_kind(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    image = tiny.random_scene(SPEC, 40, 50)
    waves = "{490, 560, 665, 842}"
    names = "{" + ", ".join(tiny.NAMES) + "}"
    tiny.write_scene(tmp_path / "a.tif", image, tiny.NAMES)
    for order in AXES:
        envi(tmp_path / f"{order}.dat", image, order, band_names=names, map_info=PLACE)
    envi(
        tmp_path / "waves.raw",
        image[::-1],
        "bil",
        wavelength="{0.842, 0.665, 0.56, 0.49}",
        wavelength_units="Micrometers",
        map_info=PLACE,
    )
    envi(
        tmp_path / "counted.bsq", image, wavelength=waves, band_names="{Band 1, Band 2, Band 3, Band 4}", map_info=PLACE
    )
    place = [10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6]
    np.savez(tmp_path / "a.npz", image=image, bands=list(tiny.NAMES), crs="EPSG:32632", transform=place)
    about = {"band_names": list(tiny.NAMES), "transform": place, "crs": "EPSG:32632"}
    one = zarr.create_array(str(tmp_path / "one.zarr"), data=image, chunks=(2, 16, 16))
    one.attrs.update(about)
    group = zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    last = group.create_array(
        "scene",
        data=np.ascontiguousarray(np.moveaxis(image, 0, -1)),
        chunks=(16, 16, 2),
        dimension_names=["y", "x", "band"],
    )
    last.attrs.update({"band_names": list(tiny.NAMES)})
    group.create_array("x", data=5e5 + 5 + 10.0 * np.arange(50))
    group.create_array("y", data=5.4e6 - 5 - 10.0 * np.arange(40))
    group.create_array("spatial_ref", data=np.array(0)).attrs.update({"crs_wkt": 'PROJCRS["UTM",ID["EPSG",32632]]'})
    with SceneReader(tmp_path / "a.tif", SPEC) as reader:
        wanted, missing = reader.read(3, 5, 30, 40)
        gsd = reader.gsd_m
    for name in ("bsq.hdr", "bil.dat", "bip.dat", "waves.raw", "counted.bsq", "a.npz", "one.zarr", "group.zarr"):
        with SceneReader(tmp_path / name, SPEC) as reader:
            dn, hidden = reader.read(3, 5, 30, 40)
            assert np.array_equal(dn, wanted) and np.array_equal(hidden, missing), name
            assert reader.crs == "EPSG:32632" and list(reader.transform)[:6] == place, name
            assert reader.gsd_m == pytest.approx(gsd, rel=1e-3), name


def test_of_a_spectrometer_the_nearest_bands_count(tmp_path: Path) -> None:
    centres = np.arange(400, 1000, 6.0)
    image = np.arange(1, len(centres) + 1, dtype=np.uint16)[:, None, None] * np.ones((1, 8, 8), np.uint16) * 10
    good = ["1"] * len(centres)
    good[int(np.abs(centres - 665).argmin())] = "0"  # a bad band: its neighbour is taken
    header = envi(tmp_path / "a.img", image, wavelength="{" + ", ".join(map(str, centres)) + "}", wavelength_units="nm",
                  bbl="{" + ", ".join(good) + "}", map_info=PLACE)  # fmt: skip
    with SceneReader(header, SPEC) as reader:
        taken = [centres[i - 1] for i in reader.band_indices]
    kept = centres[[g == "1" for g in good]]
    assert taken == [min(kept, key=lambda w: abs(w - c)) for c in (490, 560, 665, 842)]


def test_what_is_wrong_with_a_header_is_said(tmp_path: Path) -> None:
    image = np.ones((2, 3, 4), np.uint16)
    for fields, words in (
        ({"lines": "no"}, "lines = no; a whole number"),
        ({"bands": None}, "bands = nothing"),
        ({"data_type": "6"}, "data type 6 is not read"),
        ({"interleave": "tile"}, "interleave = tile"),
        ({"wavelength": "{490, x}"}, "wavelength = x; a number"),
        ({"band_names": "{a}"}, "2 bands and 1 band names"),
        ({"reflectance_scale_factor": "0"}, "a positive number"),
        ({"map_info": "{UTM, 1, 1, 0, 0, 0, 0, 32, North, WGS-84}"}, "pixels of no size"),
        ({"samples": str(1 << 25)}, "pixels along an edge"),
    ):
        with pytest.raises(RequestError, match=words):
            EnviRaster(envi(tmp_path / "a.img", image, **fields))
    header = envi(tmp_path / "a.img", image, map_info="{Polar, 1, 1, 0, 0, 1, 1, WGS-84}")
    with EnviRaster(header) as file:
        assert file.crs is None and "UTM and geographic" in file.unread[0]
        (tmp_path / "a.img").write_bytes(b"")
        with pytest.raises(IntegrityError, match="ends before"):
            file.read([1], Window(0, 0, 4, 3))
    with pytest.raises(IntegrityError, match="has 0 bytes, its header says 48"):
        EnviRaster(header)
    (tmp_path / "a.img").unlink()
    with pytest.raises(RequestError, match="are not beside it"):
        EnviRaster(header)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_header_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    header = tmp_path_factory.mktemp("hdr") / "a.hdr"
    header.write_text("ENVI\n" + text, encoding="utf-8", errors="surrogateescape")
    header.with_suffix(".img").write_bytes(b"1234")
    with pytest.raises(RequestError):
        EnviRaster(header)


def test_headers_are_read_as_they_are_written(tmp_path: Path) -> None:
    header = tmp_path / "a.hdr"
    place = Transform(10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6)
    header.write_bytes(
        write_header(
            header,
            (2, 3, 4),
            "uint8",
            ["a {b}", "c"],
            255,
            {**place_fields(place, "EPSG:32733", header), "description": "{x}"},
        )
    )
    (tmp_path / "a.img").write_bytes(bytes(24))
    assert read_header(header)["description"] == "x"
    with EnviRaster(header) as file:
        assert (file.crs, file.transform, file.nodatavals[0]) == ("EPSG:32733", place, 255)
        assert file.descriptions == ("a  b", "c")


def test_pixels_of_systems_that_nobody_knows_have_no_size(tmp_path: Path) -> None:
    for crs, wanted in (("EPSG:32633", 10.0), ("EPSG:3857", None), ("EPSG:4326", 1_112_000)):
        np.savez(tmp_path / "a.npz", image=np.ones((1, 2, 2), np.uint8), crs=crs, transform=[10.0, 0, 0, 0, -10.0, 0])
        found = kind_of(tmp_path / "a.npz").open(tmp_path / "a.npz").gsd_m()
        assert found == (None if wanted is None else pytest.approx(wanted, rel=0.02)), crs


def test_what_is_wrong_with_arrays_is_said(tmp_path: Path) -> None:
    image = np.ones((2, 3, 4), np.uint16)
    for arrays, words in (
        ({"x": image}, "a scene is an array 'image' or 'dn'"),
        ({"image": image[0]}, "a scene is an array"),
        ({"image": image.astype(np.int64)}, "holds int64 values"),
        ({"image": image, "bands": ["a"]}, "2 bands and 1 band names"),
        ({"image": image, "transform": [1.0, 0, 0]}, "six numbers"),
        ({"image": image, "scale": ["a"]}, "numbers are needed"),
        ({"image": image, "valid": image[0, :2]}, "'valid' is"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(RequestError, match=words):
            kind_of(tmp_path / "a.npz").open(tmp_path / "a.npz")


def test_zarr_stores_that_are_no_scene_are_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    place = tmp_path / "a.zarr"
    place.mkdir()
    with pytest.raises(RequestError, match="cannot be read as a Zarr store"):
        kind_of(place).open(place)
    group = zarr.open_group(str(place), mode="w")
    for name in ("a", "b"):
        group.create_array(name, data=np.ones((2, 3, 4), np.uint8))
    with pytest.raises(RequestError, match=r"one array of three axes .*; it has"):
        kind_of(place).open(place)
    one = tmp_path / "codec.zarr"
    zarr.create_array(str(one), data=np.ones((2, 3, 4), np.uint8))
    said = json.loads((one / "zarr.json").read_text())
    said["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    (one / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(RequestError, match="pickle"):
        kind_of(one).open(one)


def stac_item(path: Path, assets: dict[str, dict[str, Any]], **properties: Any) -> Path:
    content = {"type": "Feature", "id": "one", "properties": properties, "assets": assets}
    path.write_text(json.dumps(content))
    return path


def test_a_stac_item_is_read_by_its_assets(tmp_path: Path) -> None:
    image = tiny.random_scene(SPEC, 40, 50)
    assets: dict[str, dict[str, Any]] = {}
    for key, common, band in zip(("B02", "B03", "B04", "B08"), tiny.NAMES, image, strict=True):
        tiny.write_scene(tmp_path / f"{key}.tif", band[None], None, nodata=0)
        assets[key] = {"href": f"./{key}.tif", "roles": ["data"], "eo:bands": [{"name": key, "common_name": common}]}
    tiny.write_scene(tmp_path / "B11.tif", image[:1, :20, :25], None)
    assets["B11"] = {"href": "B11.tif", "roles": ["data"], "eo:bands": [{"name": "B11", "common_name": "swir16"}]}
    assets["thumb"] = {"href": "https://e.org/t.tif", "roles": ["thumbnail"]}
    item = stac_item(tmp_path / "item.json", assets, platform="sentinel-2a")
    tiny.write_scene(tmp_path / "a.tif", image, tiny.NAMES)
    with SceneReader(item, SPEC) as reader, SceneReader(tmp_path / "a.tif", SPEC) as plain:
        for one, other in zip(reader.read(0, 0, 40, 50), plain.read(0, 0, 40, 50), strict=True):
            assert np.array_equal(one, other)
        assert reader.crs == plain.crs and len(kind_of(item).files(item)) == 6
    for change, words in (
        ({"B08": {"href": "B11.tif", "eo:bands": [{"name": "B08"}]}}, "resample"),
        ({"B08": {"href": "ftp://e.org/B08.tif"}}, "nothing is fetched"),
        ({k: {"href": f"{k}.tif"} for k in ("B02", "B03", "B04")} | {"B08": {"href": "x.jp2"}}, "nir"),
    ):
        stac_item(item, assets | change, platform="sentinel-2a")
        with pytest.raises(RequestError, match=words):
            SceneReader(item, SPEC)


def test_scales_of_an_item_are_heeded(tmp_path: Path) -> None:
    tiny.write_scene(tmp_path / "a.tif", np.full((4, 40, 40), 100, np.uint8), None)
    bands = [{"name": n, "raster:scale": 0.004, "raster:offset": 0.1, "nodata": 0} for n in tiny.NAMES]
    item = stac_item(tmp_path / "i.json", {"data": {"href": "a.tif", "bands": bands}})
    with SceneReader(item, SPEC) as reader:
        assert (reader.read(0, 0, 4, 4)[0] == 5000).all()


@pytest.mark.parametrize(
    "said",
    [
        {"nodata": -9999},
        {"bands": [{"name": n, "nodata": -9999} for n in tiny.NAMES]},
        {"raster:bands": [{"nodata": -9999}] * 4, "eo:bands": [{"name": n} for n in tiny.NAMES]},
        {"nodata": -1, "bands": [{"name": n, "nodata": -9999} for n in tiny.NAMES]},
        {"nodata": "nan"},
    ],
)
def test_nodata_of_an_item_is_missing(tmp_path: Path, said: dict[str, Any]) -> None:
    """Of the asset (STAC 1.1) or of its bands, the nearer word first; the file itself declares none."""
    fill = np.nan if said.get("nodata") == "nan" else -9999
    image = np.full((4, 40, 40), 0.25, np.float32)
    image[2, :5], image[0, 7, 7] = fill, fill
    tiny.write_scene(tmp_path / "a.tif", image, None if "bands" in str(said) else tiny.NAMES, nodata=None)
    item = stac_item(tmp_path / "i.json", {"data": {"href": "a.tif", **said}})
    wanted = np.isnan(image).any(0) if np.isnan(fill) else (image == fill).any(0)
    with contextlib.closing(kind_of(item).open(item, SPEC)) as file:
        assert np.isnan(file.nodatavals).all() if np.isnan(fill) else set(file.nodatavals) == {-9999.0}
        values = file.read([1, 2, 3, 4], Window(0, 0, 40, 40))
        assert np.array_equal(file.missing([1, 2, 3, 4], Window(0, 0, 40, 40), values, []).any(0), wanted)
    with SceneReader(item, SPEC, scale=1.0) as reader:
        assert np.array_equal(reader.read(0, 0, 40, 40)[1], wanted)


def test_nodata_is_one_a_band_and_the_file_goes_first(tmp_path: Path) -> None:
    image = np.arange(40 * 40, dtype=np.uint16).reshape(1, 40, 40)
    assets = {}
    for key, common, own, said in (("B02", "blue", None, 7), ("B03", "green", 3, 8), ("B04", "red", None, None)):
        tiny.write_scene(tmp_path / f"{key}.tif", image, None, nodata=own)
        assets[key] = {"href": f"{key}.tif", "eo:common_name": common, **({} if said is None else {"nodata": said})}
    item = stac_item(tmp_path / "i.json", assets)
    with contextlib.closing(kind_of(item).open(item)) as file:
        assert file.nodatavals == (7.0, 3.0, None)
        window = Window(0, 0, 40, 40)
        missing = file.missing([1, 2, 3], window, file.read([1, 2, 3], window), [])
        assert [np.flatnonzero(m).tolist() for m in missing] == [[7], [3], []]


def test_every_kind_names_what_opens_it() -> None:
    for row in SCENE_KINDS:
        module, _, name = row.opens.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))
