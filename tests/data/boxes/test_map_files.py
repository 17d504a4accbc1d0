"""Outlines of map files: systems that are names and open nothing, entries without an outline, and damaged ones."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from rsedge.data.boxes.files import read_box_file
from rsedge.data.boxes.outlines import Outlines
from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import FinerGrid
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.inference.geopackage import write_polygons

GRID = FinerGrid(48, 64, "EPSG:32633", Transform(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0))
RING = [[500_002.0, 4_999_990.0], [500_010.0, 4_999_990.0], [500_010.0, 4_999_985.0], [500_002.0, 4_999_990.0]]
LAEA = CRS.from_user_input("+proj=laea +lat_0=47.5 +lon_0=11.3 +datum=WGS84").to_wkt()
UTM = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def feature(geometry: Any, label: str = "ship") -> dict[str, Any]:
    return {"type": "Feature", "properties": {"label": label}, "geometry": geometry}


def geojson(path: Path, features: list[Any], crs: Any = UTM) -> Path:
    content = {"type": "FeatureCollection", "features": features, **({} if crs is None else {"crs": crs})}
    path.write_text(json.dumps(content))
    return path


def geopackage(path: Path, **system: Any) -> Path:
    """Of one ship; columns of its system are overwritten."""
    write_polygons(path, "objects", np.array([RING]), {"class": str}, [["ship"]], "EPSG:32633", {})
    with sqlite3.connect(path) as base:
        for column, value in system.items():
            base.execute(f"UPDATE gpkg_spatial_ref_sys SET {column} = ? WHERE srs_id = 32633", (value,))
    base.close()
    return path


def outlines(path: Path) -> Outlines:
    (one,) = read_box_file(path)
    assert one.outlines is not None
    return one.outlines


def named(name: Any) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": name}}


@pytest.mark.parametrize(
    ("crs", "wanted"),
    [
        (None, "EPSG:4326"),
        (UTM, "EPSG:32633"),
        (named("EPSG:32633"), "EPSG:32633"),
        (named("urn:ogc:def:crs:EPSG:9.9:32633"), "EPSG:32633"),
        (named("http://www.opengis.net/def/crs/EPSG/0/32633"), "EPSG:32633"),
        (named("urn:ogc:def:crs:OGC:1.3:CRS84"), "EPSG:4326"),
        (named("OGC:CRS84"), "EPSG:4326"),
        (named(LAEA), LAEA),
    ],
)
def test_systems_of_geojson(tmp_path: Path, crs: Any, wanted: str) -> None:
    assert outlines(geojson(tmp_path / "a.geojson", [], crs)).crs == wanted


def test_systems_of_geopackages(tmp_path: Path) -> None:
    assert outlines(geopackage(tmp_path / "a.gpkg")).crs == "EPSG:32633"
    other = geopackage(tmp_path / "b.gpkg", organization="NONE", definition=LAEA)
    assert outlines(other).crs == LAEA


STRANGE = ["FILE", "+init=FILE", "+proj=utm +zone=33 +nadgrids=/etc/passwd", "https://example.org/crs.wkt", "PIPE", "",
           "CRS84/../FILE", "IGNF:LAMB93", "/vsicurl/https://example.org/crs.wkt",
           LAEA[:-1] + ',EXTENSION["PROJ4","+nadgrids=FILE"]]']  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_what_names_a_file_or_an_address_is_no_system_and_is_not_opened(tmp_path: Path, text: str) -> None:
    """A file of WKT, which GDAL would open and take, and a pipe, at which it would wait for ever."""
    (tmp_path / "crs.wkt").write_text(LAEA)
    os.mkfifo(tmp_path / "pipe")
    text = text.replace("FILE", str(tmp_path / "crs.wkt")).replace("PIPE", str(tmp_path / "pipe"))
    features = [feature({"type": "Polygon", "coordinates": [RING]})]
    with pytest.raises(RequestError, match=r"a\.geojson: crs\.properties\.name .*EPSG code"):
        read_box_file(geojson(tmp_path / "a.geojson", features, named(text)))[0].on(GRID)
    for system in ({"organization": "NONE", "definition": text}, {"organization_coordsys_id": text}):
        with pytest.raises(RequestError, match=r"b\.gpkg: its coordinate reference system .*EPSG code"):
            read_box_file(geopackage(tmp_path / "b.gpkg", **system))[0].on(GRID)


@pytest.mark.parametrize("crs", ["EPSG:32633", {"type": "link", "properties": {"href": "x"}}, named(None), {}])
def test_a_system_that_is_said_in_another_way_is_refused(tmp_path: Path, crs: Any) -> None:
    with pytest.raises(RequestError, match=r"crs\.properties\.name is no text; write an EPSG code"):
        read_box_file(geojson(tmp_path / "a.geojson", [], crs))


EMPTY = [None, {"type": "Polygon", "coordinates": []}, {"type": "MultiPolygon", "coordinates": []},
         {"type": "Polygon", "coordinates": [[]]}, {"type": "MultiPolygon", "coordinates": [[]]},
         {"type": "MultiPolygon", "coordinates": [[[]], []]}]  # fmt: skip


@pytest.mark.parametrize("geometry", EMPTY)
def test_entries_without_an_outline_are_counted(tmp_path: Path, geometry: Any) -> None:
    there = {"type": "MultiPolygon", "coordinates": [[RING], []]}
    found = outlines(geojson(tmp_path / "a.geojson", [feature(geometry), feature(there, "boat")]))
    assert found.labels == ("boat",) and found.empty == 1 and found.places[0].endswith("features[1]")
    assert len(read_box_file(tmp_path / "a.geojson")[0].on(GRID).boxes) == 1


def blob(kind: int, *parts: bytes, flags: int = 1) -> bytes:
    return struct.pack("<2sBBiBII", b"GP", 0, flags, 32633, 1, kind, len(parts)) + b"".join(parts)


def polygon(*rings: list[list[float]]) -> bytes:
    body = b"".join(struct.pack("<I", len(r)) + np.array(r, "<f8").tobytes() for r in rings)
    return struct.pack("<BII", 1, 3, len(rings)) + body


NONE_THERE = [None, blob(3), blob(6), blob(3, flags=0b10001), blob(6, polygon()), blob(6, polygon([])), blob(1003)]


@pytest.mark.parametrize("geometry", NONE_THERE)
def test_rows_without_an_outline_are_counted(tmp_path: Path, geometry: Any) -> None:
    path = geopackage(tmp_path / "a.gpkg")
    with sqlite3.connect(path) as base:
        base.execute('INSERT INTO objects (geom, "class") VALUES (?, ?)', (geometry, "boat"))
        base.execute('INSERT INTO objects (geom, "class") VALUES (?, ?)', (blob(6, polygon(), polygon(RING)), "boat"))
    base.close()
    found = outlines(path)
    assert found.labels == ("ship", "boat") and found.empty == 1 and found.places[1].endswith("row 3")
    assert np.array_equal(found.rings[1], RING)


numbers = st.one_of(
    st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.just(1e300), st.just(2**64 - 1)
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(["", "1", "nan", "Polygon"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=8,
)
point = st.one_of(st.lists(numbers, min_size=1, max_size=4), st.sampled_from(RING), anything)
ring = st.one_of(st.just(RING), st.lists(point, max_size=5), anything)
polygons = st.one_of(st.lists(ring, max_size=2), anything)
geometries = st.one_of(
    st.builds(lambda c: {"type": "Polygon", "coordinates": c}, polygons),
    st.builds(lambda c: {"type": "MultiPolygon", "coordinates": c}, st.one_of(st.lists(polygons, max_size=2), anything)),
    st.builds(lambda k, c: {"type": k, "coordinates": c},
              st.sampled_from(["Point", "LineString", "MultiPoint", "", None, 3]), anything),
    st.builds(lambda g: {"type": "GeometryCollection", "geometries": g}, anything), st.just({"type": "Polygon"}), anything,
)  # fmt: skip
features = st.one_of(
    st.builds(feature, geometries),
    st.builds(lambda p, g: {"type": "Feature", "properties": p, "geometry": g}, anything, geometries), anything,
)  # fmt: skip


@given(st.lists(features, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_malformed_features_are_objects_counted_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Any]
) -> None:
    path = geojson(tmp_path_factory.mktemp("g") / "a.geojson", listed)
    try:
        found = outlines(path)
        assert len(found.rings) + found.empty == len(listed)
        assert all(len(r) >= 3 and np.isfinite(r).all() for r in found.rings)
        placed = read_box_file(path)[0].on(GRID)
        assert np.isfinite(placed.table(["ship", *placed.labels], True)).all()
    except RequestError as error:
        assert "a.geojson" in str(error)


@given(
    geometry=st.one_of(
        st.none(), st.binary(max_size=80), st.text(max_size=9), st.integers(-9, 9), st.floats(),
        st.builds(lambda k, f, b: blob(k, flags=f) + b, st.sampled_from([1, 3, 6, 7, 1003, 2003, 3006, 4003, 2**31]),
                  st.integers(0, 255), st.binary(max_size=60)),
        st.builds(lambda points: blob(6, polygon(points)), st.lists(st.tuples(st.floats(), st.floats()).map(list), max_size=5)),
    ),
    label=st.one_of(st.none(), st.just("ship"), st.binary(max_size=3), st.integers()),
    srs=st.one_of(st.none(), st.integers(), st.just(32633), st.just("32633"), st.binary(max_size=2)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_malformed_rows_are_objects_counted_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, geometry: Any, label: Any, srs: Any
) -> None:
    path = tmp_path_factory.mktemp("g") / "a.gpkg"
    with sqlite3.connect(path) as base:
        base.executescript(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization, organization_coordsys_id, definition);"
            "INSERT INTO gpkg_spatial_ref_sys VALUES (32633, 'EPSG', 32633, '');"
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id); CREATE TABLE objects (geom, label);"
        )
        try:
            base.execute("INSERT INTO gpkg_geometry_columns VALUES ('objects', 'geom', ?)", (srs,))
            base.execute("INSERT INTO objects VALUES (?, ?)", (geometry, label))
        except OverflowError:
            return
    base.close()
    try:
        found = outlines(path)
        assert len(found.rings) + found.empty == 1
        placed = read_box_file(path)[0].on(GRID)
        assert np.isfinite(placed.table(list(placed.labels), True)).all()
    except RequestError as error:
        assert "a.gpkg" in str(error)
