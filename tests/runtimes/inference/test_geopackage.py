"""Objects and vectors on the map in the files that GIS programs open: GeoPackage and GeoParquet, read by other programs."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.inference.geopackage import write_polygons
from rsedge.runtimes.inference.geoparquet import write_chip_table
from rsedge.runtimes.inference.object_files import check_output, write_boxes
from rsedge.runtimes.inference.vectors import check_chips
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


def reader(folder: Path, **profile: Any) -> SceneReader:
    path = tiny.write_scene(folder / "s.tif", tiny.random_scene(SPEC, 40, 60), tiny.NAMES, **profile)
    return SceneReader(path, SPEC)


@settings(max_examples=8, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(*[st.floats(0, 40, width=32)] * 4, st.floats(0, 1, width=32), st.sampled_from([0, 1])), max_size=4
    )
)
def test_objects_lie_where_they_are(tmp_path_factory: pytest.TempPathFactory, boxes: list[Any]) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    folder = tmp_path_factory.mktemp("gpkg")
    table = np.array(boxes, np.float32).reshape(-1, 6)
    with reader(folder) as scene:
        write_boxes(folder / "o.gpkg", scene, table, ["ship", 'it\'s a "plane"'], {"bundle": "b"})
    info = pyogrio.read_info(folder / "o.gpkg")
    assert info["crs"] == "EPSG:32632" and info["features"] == len(table) and info["geometry_type"] == "Polygon"
    assert pyogrio.list_layers(folder / "o.gpkg").tolist() == [["objects", "Polygon"]]
    found = pyogrio.read_dataframe(folder / "o.gpkg")
    assert found["class"].tolist() == [("ship", 'it\'s a "plane"')[int(b[5])] for b in table]
    assert np.allclose(found["score"], table[:, 4], atol=1e-4)
    if len(table):
        low, high = np.minimum(table[:, :2], table[:, 2:4]), np.maximum(table[:, :2], table[:, 2:4])
        wanted = np.stack(
            [5e5 + 10 * low[:, 0], 5.4e6 - 10 * high[:, 1], 5e5 + 10 * high[:, 0], 5.4e6 - 10 * low[:, 1]], 1
        )
        assert np.allclose(found.geometry.bounds.to_numpy(), wanted, atol=1e-2)


def test_a_geopackage_is_what_the_standard_says(tmp_path: Path) -> None:
    ring = np.array([[[11.0, 48], [11, 47], [12, 47], [12, 48], [11, 48]]])
    write_polygons(tmp_path / "a.gpkg", "objects", ring, {"n": int}, [[7]], "EPSG:4326", {"by": "x"})
    with sqlite3.connect(tmp_path / "a.gpkg") as base:
        assert base.execute("PRAGMA application_id").fetchone()[0] == 0x47504B47
        assert base.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert not base.execute("PRAGMA foreign_key_check").fetchall()
        assert base.execute("SELECT min_x, max_y, srs_id, description FROM gpkg_contents").fetchone() == (
            11,
            48,
            4326,
            '{"by": "x"}',
        )
        blob = base.execute("SELECT geom FROM objects").fetchone()[0]
    assert blob[:2] == b"GP" and len(blob) == 8 + 32 + 13 + 80
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gpkg"]


def test_a_scene_without_a_place_is_refused(tmp_path: Path) -> None:
    with (
        reader(tmp_path, crs=None) as scene,
        pytest.raises(RequestError, match="lie on the earth in GeoJSON, GeoPackage and"),
    ):
        write_boxes(tmp_path / "o.gpkg", scene, np.zeros((0, 6), np.float32), ["a"], {})


@pytest.mark.parametrize("name", ["o.gpkg", "o.parquet", "o.geojson"])
def test_what_nobody_can_write_is_found_before_the_scene_runs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that is none; definitions without rasterio; Parquet without pyarrow."""
    scene: Any = SimpleNamespace(path=tmp_path / "s.npz", crs="EPSG:999999", transform=Transform(), height=4, width=4)
    with pytest.raises(RequestError, match="coordinate reference system"):
        check_output(tmp_path / name, scene)
    scene.crs = "EPSG:32633"
    check_output(tmp_path / name, scene)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet" if name == "o.parquet" else "rsedge.data.scenes.raster", None)
    with pytest.raises(MissingCapability, match=rf"{name}: .* nee[d]"):
        check_output(tmp_path / name, scene)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("name", "words"), [
    ("file/o.gpkg", "cannot be written"), ("folder", "is a folder"), ("link.gpkg", "is a link"),
    ("s.tif.gpkg", "would overwrite"), ("closed/o.gpkg", "does not let you write"),
])  # fmt: skip
def test_places_that_cannot_be_written_are_found_before_the_scene_runs(
    tmp_path: Path, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(tmp_path) as scene:
        (tmp_path / "file").touch()
        for folder in ("folder.gpkg", "closed"):
            (tmp_path / folder).mkdir()
        (tmp_path / "link.gpkg").symlink_to(tmp_path / "file")
        (tmp_path / "s.tif.gpkg").hardlink_to(scene.path)
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "closed")  # root may write everywhere
        with pytest.raises(RequestError, match=words):
            check_output(tmp_path / (f"{name}.gpkg" if name == "folder" else name), scene)
        (tmp_path / "old.gpkg").write_text("no GeoPackage")
        for new in ("old.gpkg", "new/o.gpkg"):
            check_output(tmp_path / new, scene)
            write_boxes(tmp_path / new, scene, np.zeros((0, 6), np.float32), ["a"], {})
            assert sqlite3.connect(tmp_path / new).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_geopackage_that_is_open_elsewhere_is_not_replaced(tmp_path: Path) -> None:
    """SQLite would lay what the other program has not finished over the new file."""
    with reader(tmp_path) as scene:
        write_boxes(tmp_path / "o.gpkg", scene, np.zeros((0, 6), np.float32), ["a"], {})
        other = sqlite3.connect(tmp_path / "o.gpkg")
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE more (x)")
        other.commit()
        with pytest.raises(RequestError, match=r"o\.gpkg-wal lies beside it .* close it there, or choose another name"):
            check_output(tmp_path / "o.gpkg", scene)
        other.close()
        check_output(tmp_path / "o.gpkg", scene)


def test_vectors_of_chips_are_a_table_with_outlines(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    geopandas = pytest.importorskip("geopandas")
    grid = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    grid[:, 1, 2] = np.nan
    with reader(tmp_path) as scene:
        write_chip_table(tmp_path / "v.parquet", scene, grid, ["a", "b", "c", "d"], 20, {"rsedge_bundle": "b"})
    found = geopandas.read_parquet(tmp_path / "v.parquet")
    assert len(found) == 5 and found.crs.to_epsg() == 32632
    assert np.array_equal(np.stack(found["vector"]), grid.reshape(4, 6).T[:5])
    assert found.geometry[5 - 1].bounds == (5e5 + 200, 5.4e6 - 400, 5e5 + 400, 5.4e6 - 200)
    metadata = pq.read_schema(tmp_path / "v.parquet").metadata
    assert json.loads(metadata[b"names"]) == ["a", "b", "c", "d"] and metadata[b"rsedge_bundle"] == b"b"


def test_systems_that_nobody_can_write_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that does not exist, and any code without rasterio."""
    ring = np.array([[[0.0, 0], [0, 1], [1, 1], [0, 0]]])
    scene: Any = SimpleNamespace(path=tmp_path / "s.npz", crs="EPSG:999999", points=Points(), transform=None)
    with pytest.raises(RequestError, match=r"a\.gpkg: .*EPSG:999999 is none"):
        write_polygons(tmp_path / "a.gpkg", "objects", ring, {"n": int}, [[7]], scene.crs, {})
    for name in ("a.tif", "a.parquet"):
        with pytest.raises(RequestError, match=r"coordinate reference system"):
            check_chips(tmp_path / name, scene)
    monkeypatch.setitem(sys.modules, "rasterio.crs", None)
    with pytest.raises(
        MissingCapability, match=r"a\.parquet: .* needs the Python module 'rasterio'.*pip install rasterio"
    ):
        check_chips(tmp_path / "a.parquet", scene)
