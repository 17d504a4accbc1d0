"""Scenes that name a coordinate reference system but have no transform: they lie nowhere, in every kind of output."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.rpc import RPC
from rasterio.transform import Affine

import rsedge
from rsedge.data.boxes.outlines import Outlines, on_grid
from rsedge.data.errors import RequestError
from rsedge.data.scenes.envi import write_header
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.grids import FinerGrid, check_same_grid
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.raster_file import NO_PLACE, Transform, placed
from rsedge.data.sets.scene_files import read_scene
from rsedge.runtimes.inference import masks, object_files
from rsedge.runtimes.inference.geoparquet import write_chip_table
from rsedge.runtimes.inference.prompts import read_prompts
from rsedge.runtimes.inference.vectors import write_chips
from rsedge.runtimes.inspecting import describe
from tests.runtimes import tiny_models as tiny

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SPEC = tiny.spec()
KINDS = ("tif", "npz", "zarr")


def scene(folder: Path, kind: str = "tif", crs: str | None = "EPSG:4326", **more: Any) -> Path:
    """Of 40 x 60 pixels, in a system of degrees, without a transform."""
    image, path = tiny.random_scene(SPEC, 40, 60), folder / f"s.{kind}"
    if kind == "tif":
        return tiny.write_scene(path, image, tiny.NAMES, crs=crs, transform=Affine.identity(), **more)
    about = {} if crs is None else {"crs": crs}
    if kind == "npz":
        np.savez(path, image=image, bands=list(tiny.NAMES), **about)
        return path
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(path), data=image, chunks=image.shape)
    array.attrs.update({"band_names": list(tiny.NAMES), **about})
    return path


@pytest.fixture(params=KINDS)
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SceneReader]:
    with SceneReader(scene(tmp_path, request.param), SPEC) as found:
        yield found


def test_the_reader_has_no_system_and_says_why(reader: SceneReader) -> None:
    assert (reader.crs, reader.gsd_m, reader.transform) == (None, None, Transform())
    found = " ".join(reader.warnings)
    assert "names EPSG:4326 but has no transform" in found and NO_PLACE in found and "unknown" in found


@pytest.mark.parametrize("kind", KINDS)
def test_maps_and_what_lies_beside_them_say_no_place(kind: str, bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = scene(tmp_path, kind)
    with rsedge.load(bundle()) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = opened.predict_into(source, tmp_path / "out", probabilities=tmp_path / "out")
        opened.predict(source, tmp_path / "cog.tif", cog=True)
        opened.predict(source, tmp_path / "m.img")
    assert (record["crs"], record["transform"], record["footprint"], record["gsd_m"]) == (None, None, None, None)
    for path in (tmp_path / "out/s.tif", tmp_path / "out/s.probabilities.tif", tmp_path / "cog.tif"):
        with rasterio.open(path) as file:
            assert file.crs is None and file.transform.is_identity
    assert "map info" not in (tmp_path / "m.hdr").read_text()
    item = json.loads((tmp_path / "out/s.stac.json").read_text())
    assert item["geometry"] is None and "bbox" not in item and not [k for k in item["properties"] if "proj:" in k]


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
def test_objects_on_the_earth_are_refused(reader: SceneReader, suffix: str, tmp_path: Path) -> None:
    boxes = np.array([[1, 2, 5, 6, 0.9, 0]], np.float32)
    with pytest.raises(RequestError, match=r"no place on a map .*write pixels with --output o\.csv"):
        object_files.write_boxes(tmp_path / f"o{suffix}", reader, boxes, ["ship"], {})
    object_files.write_boxes(tmp_path / "o.csv", reader, boxes, ["ship"], {})
    assert ",1.00,2.00,5.00,6.00,ship" in (tmp_path / "o.csv").read_text()


def test_polygons_and_prompts_of_longitude_and_latitude_are_refused(reader: SceneReader, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no place on a map .*write a map"):
        masks.check_output(tmp_path / "m.geojson", reader)
    masks.check_output(tmp_path / "m.tif", reader)
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [11, 4]}, "properties": {}}
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(RequestError, match=r"no place on a map .*give pixels"):
        read_prompts(tmp_path / "p.geojson", reader)
    with pytest.raises(RequestError, match=r"outlines are map coordinates .*no place on a map"):
        on_grid(Outlines((np.zeros((4, 2)),), ("ship",), ("a",), "EPSG:4326"), reader, "a.geojson")


def test_outlines_of_chips_are_pixels(reader: SceneReader, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    write_chip_table(tmp_path / "v.parquet", reader, np.zeros((1, 1, 2), np.float32), ["a"], 20, {})
    found = geopandas.read_parquet(tmp_path / "v.parquet")
    assert found.crs is None and found.geometry[1].bounds == (20, 0, 40, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_to_train_on_have_no_bounds(kind: str, tmp_path: Path) -> None:
    path = scene(tmp_path, kind)
    with pytest.raises(RequestError, match="pixel size on the ground is unknown"):
        read_scene(path, SPEC, training=True)
    if path.is_file():  # a recipe's scenes are files
        assert read_scene(path, SPEC, training=True, gsd_m=10).bounds is None


def test_labels_fit_where_neither_lies_anywhere(tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    bare.mkdir(), other.mkdir()
    with open_raster(scene(bare, crs=None)) as plain, open_raster(scene(other)) as named:
        check_same_grid(plain, plain.path, named, "labels")
        check_same_grid(named, named.path, plain, "labels")
    lies = tiny.write_scene(tmp_path / "lies.tif", tiny.random_scene(SPEC, 40, 60), tiny.NAMES, crs="EPSG:4326")
    with (
        open_raster(lies) as here,
        open_raster(other / "s.tif") as named,
        pytest.raises(RequestError, match="has no CRS, the scene has EPSG:4326"),
    ):
        check_same_grid(named, named.path, here, "labels")


def test_what_lies_nowhere_lies_nowhere_on_other_grids(reader: SceneReader, tmp_path: Path) -> None:
    """A map of chips has no transform either, and labels of a finer scene fit that have none."""
    write_chips(tmp_path / "v.tif", reader, "embedding", np.zeros((1, 2, 3), np.float32), ["a"], 20)
    with open_raster(tmp_path / "v.tif") as file:
        assert file.crs is None and file.transform.is_identity
    finer = FinerGrid.over(reader, 2)
    check_same_grid(FinerGrid(80, 120, None, Transform()), tmp_path / "labels.tif", finer, "labels")


def test_inspect_says_it(tmp_path: Path) -> None:
    found = describe(scene(tmp_path))
    assert found["crs"] is None and found["gsd_m"] is None and "names EPSG:4326" in found["unread"][0]


def test_rational_polynomials_are_a_place_of_their_own(tmp_path: Path) -> None:
    """A system beside them says nothing of where the pixels lie, and nothing is lost with it."""
    row = [1.0] + [0.0] * 19
    rpcs = RPC(
        height_off=0.0, height_scale=1.0, lat_off=48.0, lat_scale=1.0, long_off=11.0, long_scale=1.0, line_off=20.0,
        line_scale=20.0, samp_off=30.0, samp_scale=30.0, line_den_coeff=row, line_num_coeff=row, samp_den_coeff=row,
        samp_num_coeff=row,
    )  # fmt: skip
    with SceneReader(scene(tmp_path, rpcs=rpcs), SPEC) as reader:
        assert reader.crs is None and reader.points.rpcs is not None
        assert not any("names EPSG" in one for one in reader.warnings)
        assert any("by ground control points or RPC alone" in one for one in reader.warnings)


def test_a_header_of_envi_lies_nowhere_without_map_info(tmp_path: Path) -> None:
    image = tiny.random_scene(SPEC, 40, 60)
    (tmp_path / "s.raw").write_bytes(image.tobytes())
    wkt = {"coordinate system string": 'GEOGCS["WGS 84",DATUM["x",SPHEROID["y",6378137,298.25]]]'}
    (tmp_path / "s.hdr").write_bytes(write_header(tmp_path / "s.raw", image.shape, "uint16", tiny.NAMES, 0, wkt))
    with SceneReader(tmp_path / "s.hdr", SPEC) as reader:
        assert reader.crs is None and reader.transform.is_identity


@pytest.mark.parametrize("transform", [Transform(c=1.0), Transform(e=-1.0), Transform(a=2.0)])
def test_any_other_transform_is_a_place(transform: Transform) -> None:
    assert placed("EPSG:4326", transform) == ("EPSG:4326", ()) and placed(None, Transform()) == (None, ())
