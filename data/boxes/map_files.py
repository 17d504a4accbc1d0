"""Files of outlines in map coordinates: GeoJSON (RFC 7946) and GeoPackage (OGC 12-128), read without GDAL.

Only polygons are objects. An entry that has no outline (no geometry, or an empty one) is counted and is none; everything else that
is no polygon is refused.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.boxes.outlines import Outlines, Points
from rsedge.data.errors import RequestError
from rsedge.data.json_text import LABELS_BYTES, read_json
from rsedge.data.scenes.crs_text import crs_text
from rsedge.data.scenes.raster_file import GEOGRAPHIC

LABEL_FIELDS = ("label", "class")
_FURTHEST = 1e12
"""Of map coordinates, in any unit; what lies further is no place."""
_CORNERS = 3
_OGC = r"(?i)(?:{0}:|urn:ogc:def:crs:{0}:[\d.]*:|https?://www\.opengis\.net/def/crs/{0}/[\d.]+/)"
"""How names of systems begin; the addresses are names, too, and nobody goes there."""
_CODE, _CRS84 = re.compile(_OGC.format("EPSG") + r"(\d{4,6})"), re.compile(_OGC.format("OGC") + "CRS84")
_POLYGON, _MULTI = 3, 6
_AXES = {0: 2, 1: 3, 2: 3, 3: 4}
"""Numbers of a point, by the thousands of its geometry's type: x and y, and z, m or both."""
_ENVELOPES = (0, 32, 48, 48, 64)
_HEAD = 9
"""Bytes of byte order, type and count."""


def read_geojson(path: Path) -> Outlines:
    """Objects of a FeatureCollection; their class is the property ``label`` or ``class``. Longitude and latitude, unless an old
    file names another system under ``crs``.

    Raises:
        RequestError: no GeoJSON, a feature without a class, or one that is no polygon; a system that is no EPSG code.
    """
    content = read_json(path, LABELS_BYTES)
    if not isinstance(content, dict) or not isinstance(content.get("features"), list):
        raise RequestError(f"{path}: no GeoJSON file: it needs type FeatureCollection and the list features")
    rows = []
    for number, feature in enumerate(content["features"]):
        where = f"{path}: features[{number}]"
        if not isinstance(feature, dict):
            raise RequestError(f"{where}: no feature")
        label = _label(where, feature.get("properties"))
        rows.append((_json_outline(where, feature.get("geometry")), label, where))
    about = content.get("rsedge")
    scene = about.get("scene") if isinstance(about, dict) else None
    return _outlines(rows, geojson_crs(path, content), scene if isinstance(scene, str) else None)


def _outlines(rows: list[tuple[Points, str, str]], crs: str, scene: str | None = None) -> Outlines:
    """Of outline, class and place of each entry."""
    for points, _, where in rows:
        if 0 < len(points) < _CORNERS or not (np.abs(points) < _FURTHEST).all():
            raise RequestError(
                f"{where}: an outline needs three points or more, all of them numbers of places on a map"
            )
    objects = [row for row in rows if len(row[0])]
    return Outlines(tuple(row[0] for row in objects), tuple(row[1] for row in objects), tuple(row[2] for row in objects),
                    crs, scene, len(rows) - len(objects))  # fmt: skip


def _label(where: str, fields: Any) -> str:
    fields = fields if isinstance(fields, Mapping) else {}
    found = next((str(fields[n]).strip() for n in LABEL_FIELDS if fields.get(n) not in (None, "")), "")
    if not found:
        raise RequestError(f"{where}: its class is missing; name it in the field {' or '.join(LABEL_FIELDS)}")
    return found


def _json_outline(where: str, geometry: Any) -> Points:
    """The outer ring, or those of all parts; (0, 2) where there is none."""
    if geometry is None:
        return np.zeros((0, 2))
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise RequestError(f"{where}: geometry of type {kind}; objects are of type Polygon or MultiPolygon")
    parts = geometry.get("coordinates")
    if kind == "Polygon":
        parts = [parts]
    if not _lists(parts):
        raise RequestError(f"{where}: its coordinates are no rings of points")
    points = [point for part in parts for point in (part[0] if part else ())]
    if not all(isinstance(point, list) and len(point) > 1 and all(map(_is_number, point)) for point in points):
        raise RequestError(f"{where}: its coordinates are no rings of points")
    return np.array([point[:2] for point in points], np.float64).reshape(-1, 2)


def _lists(parts: Any) -> bool:
    """Whether it is a list of polygons, each a list of rings, each a list."""
    return isinstance(parts, list) and all(
        isinstance(part, list) and all(isinstance(ring, list) for ring in part) for part in parts
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def geojson_crs(path: Path, content: Mapping[str, Any]) -> str:
    """The system of a GeoJSON file: longitude and latitude (``EPSG:4326``), or what an old one names under ``crs``, which RFC 7946
    does not have.

    Raises:
        RequestError: it is no EPSG code, OGC name of one, or WKT.
    """
    given = content.get("crs")
    if given is None:
        return GEOGRAPHIC
    properties = given.get("properties") if isinstance(given, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    where = f"{path}: crs.properties.name"
    if not isinstance(name, str):
        raise RequestError(f"{where} is no text; write an EPSG code (EPSG:32633) there, or leave crs out")
    if _CRS84.fullmatch(name.strip()):
        return GEOGRAPHIC
    code = _CODE.fullmatch(name.strip())
    return crs_text(code[1] if code else name, where)


def read_geopackage(path: Path) -> Outlines:
    """Objects of a GeoPackage's one layer of features; their class is the column ``label`` or ``class``.

    Raises:
        RequestError: no GeoPackage, none or several layers, a row without a class, or one that is no polygon; a system that is
            neither an EPSG code nor WKT.
    """
    with _opened(path) as base:
        table, column, number = _layer(path, base)
        names = [row[1] for row in base.execute(f"PRAGMA table_info({_quoted(table)})")]
        label = next((name for name in LABEL_FIELDS if name in names), None)
        if label is None:
            raise RequestError(f"{path}: layer {table} has no column {' or '.join(LABEL_FIELDS)}")
        found = base.execute(f"SELECT {_quoted(column)}, {_quoted(label)} FROM {_quoted(table)}").fetchall()
        crs = _system(path, base, number)
    rows = []
    for row, (blob, name) in enumerate(found, 1):
        where = f"{path}: layer {table}: row {row}"
        text = _label(where, {label: name})
        rows.append((_blob_outline(where, blob), text, where))
    return _outlines(rows, crs)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            yield base
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise RequestError(f"{path}: not readable as a GeoPackage ({error})") from error


def _layer(path: Path, base: sqlite3.Connection) -> tuple[str, str, int]:
    """Table, geometry column and number of the system."""
    found = base.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns").fetchall()
    if len(found) != 1:
        names = ", ".join(str(row[0]) for row in found) or "none"
        raise RequestError(
            f"{path}: one layer of objects is read, found {names}; export one layer to a file of its own"
        )
    table, column, number = found[0]
    if not isinstance(number, int):
        raise RequestError(f"{path}: layer {table}: srs_id is {number!r}; it is the number of a system")
    return str(table), str(column), number


def _system(path: Path, base: sqlite3.Connection, number: int) -> str:
    asked = "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
    row = base.execute(asked, (number,)).fetchone()
    if row is None or number in (-1, 0):
        raise RequestError(f"{path}: it does not say in which coordinate reference system its outlines are; assign one")
    where = f"{path}: its coordinate reference system (gpkg_spatial_ref_sys, srs_id {number})"
    return crs_text(row[1] if str(row[0]).upper() == "EPSG" else row[2], where)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _blob_outline(where: str, blob: Any) -> Points:
    """Of a GeoPackage's geometry: a header, then well-known binary; (0, 2) where it is NULL or empty."""
    if blob is None:
        return np.zeros((0, 2))
    try:
        magic, _, flags = struct.unpack_from("<2sBB", blob)
        if magic != b"GP":
            raise RequestError(f"{where}: no geometry of a GeoPackage")
        rings = list(_wkb_rings(where, blob, 8 + _ENVELOPES[(flags >> 1) & 7]))
    except (struct.error, TypeError, LookupError, ValueError) as error:
        raise RequestError(f"{where}: its geometry is damaged") from error
    return np.concatenate([np.zeros((0, 2)), *rings])


def _wkb_rings(where: str, blob: bytes, at: int) -> Iterator[Points]:
    """The outer ring of each polygon; a polygon's further rings are holes."""
    _, kind, count = _wkb_head(blob, at)
    parts = 1
    if kind % 1000 == _MULTI:
        parts, at = count, at + _HEAD
    for _ in range(parts):
        order, kind, count = _wkb_head(blob, at)
        if kind % 1000 != _POLYGON:
            raise RequestError(f"{where}: geometry of type {kind}; objects are polygons")
        axes = _AXES[kind // 1000]
        at += _HEAD
        for number in range(count):
            (points,) = struct.unpack_from(f"{order}I", blob, at)
            values = np.frombuffer(blob, f"{order}f8", points * axes, at + 4).reshape(-1, axes)
            if number == 0:
                yield values[:, :2].astype(np.float64)
            at += 4 + values.nbytes


def _wkb_head(blob: bytes, at: int) -> tuple[str, int, int]:
    """Byte order, type, and number of parts or rings."""
    order = "<" if blob[at] == 1 else ">"
    kind, count = struct.unpack_from(f"{order}II", blob, at + 1)
    return order, int(kind), int(count)
