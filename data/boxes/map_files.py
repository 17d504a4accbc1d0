"""Outlines of objects in map coordinates: GeoJSON (RFC 7946) and GeoPackage (OGC 12-128), read without GDAL.

Only polygons are objects. They become boxes on the grid of an image (:func:`on_grid`), which says where it lies.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import cornered
from rsedge.data.boxes.oriented import rectangle_around
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.json_text import LABELS_BYTES, read_json
from rsedge.data.scenes.raster_file import GEOGRAPHIC, NO_PLACE

Points = npt.NDArray[np.float64]
LABEL_FIELDS = ("label", "class")
_POLYGON, _MULTI = 3, 6
_ENVELOPES = (0, 32, 48, 48, 64)
_HEAD = 9
"""Bytes of byte order, type and count."""


@dataclass(frozen=True)
class Outlines:
    """Objects of one file.

    Attributes:
        rings: per object the points (p, 2) of its outline, x and y of the system.
        labels: per object the name of its class.
        crs: the system, e.g. ``EPSG:32633`` or WKT.
        scene: name of the image, where the file says it.
    """

    rings: tuple[Points, ...]
    labels: tuple[str, ...]
    crs: str
    scene: str | None = None


def box_around(where: str, points: Points) -> tuple[float, ...]:
    """The smallest box around points (pixels), as :class:`~rsedge.data.boxes.files.LabelledImage` has turned ones.

    Raises:
        RequestError: fewer than three points, one that is no number, or all on one line.
    """
    if len(points) < 3 or not np.isfinite(points).all():
        raise RequestError(f"{where}: an outline needs three points or more, all of them numbers")
    box = rectangle_around(points)
    if box[2] * box[3] < 1e-6:
        raise RequestError(f"{where}: its outline has no area")
    return tuple(cornered(box[None])[0].tolist())


def on_grid(found: Outlines, crs: Any, transform: Any, where: str) -> tuple[tuple[float, ...], ...]:
    """The smallest boxes around outlines on an image's grid: corners (pixels) and angle of each.

    Args:
        crs, transform: of the image, as :class:`rsedge.data.scenes.raster_file.RasterFile` has them.
        where: the file of outlines, for errors.

    Raises:
        RequestError: the image does not say where it lies, the systems do not fit, or an outline has no area. MissingCapability:
            rasterio is not here, and the systems differ.
    """
    if crs is None:
        raise RequestError(
            f"{where}: its outlines are map coordinates ({found.crs[:40]}), and the image {NO_PLACE}; "
            "give outlines in pixels (.csv with x1, y1 to x4, y4, or DOTA's .txt)"
        )
    if not found.rings:
        return ()
    x, y = np.concatenate(found.rings).T
    if crs != found.crs:
        try:
            from rsedge.data.scenes.raster import between, gdal_errors
        except ModuleNotFoundError as error:
            raise missing_extra("rasterio", None, f"{where}: bringing outlines into the image's system") from error
        with gdal_errors(f"{where}: {found.crs[:40]} cannot be brought into the image's system"):
            x, y = between(found.crs, crs, x, y)
    x, y = x - transform.c, y - transform.f
    area = transform.a * transform.e - transform.b * transform.d
    pixels = np.stack([transform.e * x - transform.b * y, transform.a * y - transform.d * x], 1) / area
    ends = np.cumsum([len(ring) for ring in found.rings])[:-1]
    parts = enumerate(np.split(pixels, ends), 1)
    return tuple(box_around(f"{where}: object {number}", part) for number, part in parts)


def read_geojson(path: Path) -> Outlines:
    """Objects of a FeatureCollection; their class is the property ``label`` or ``class``. Longitude and latitude, unless an old
    file names another system under ``crs``.

    Raises:
        RequestError: no GeoJSON, a feature without a class, or one that is no polygon.
    """
    content = read_json(path, LABELS_BYTES)
    if not isinstance(content, dict) or not isinstance(content.get("features"), list):
        raise RequestError(f"{path}: no GeoJSON file: it needs type FeatureCollection and the list features")
    rings, labels = [], []
    for number, feature in enumerate(content["features"]):
        where = f"{path}: features[{number}]"
        if not isinstance(feature, dict):
            raise RequestError(f"{where}: no feature")
        labels.append(_label(where, feature.get("properties")))
        rings.append(_json_ring(where, feature.get("geometry")))
    about = content.get("rsedge")
    scene = about.get("scene") if isinstance(about, dict) else None
    return Outlines(tuple(rings), tuple(labels), _json_crs(content), scene if isinstance(scene, str) else None)


def _label(where: str, fields: Any) -> str:
    fields = fields if isinstance(fields, Mapping) else {}
    found = next((str(fields[n]).strip() for n in LABEL_FIELDS if fields.get(n) not in (None, "")), "")
    if not found:
        raise RequestError(f"{where}: its class is missing; name it in the field {' or '.join(LABEL_FIELDS)}")
    return found


def _json_ring(where: str, geometry: Any) -> Points:
    """The outer ring, or those of all parts."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise RequestError(f"{where}: geometry of type {kind}; objects are of type Polygon or MultiPolygon")
    try:
        polygons = geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]
        points = [[float(v) for v in point[:2]] for polygon in polygons for point in polygon[0]]
        return np.array(points, np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RequestError(f"{where}: its coordinates are no rings of points") from error


def _json_crs(content: Mapping[str, Any]) -> str:
    try:
        name = str(content["crs"]["properties"]["name"])
    except (KeyError, TypeError):
        return GEOGRAPHIC
    return GEOGRAPHIC if "CRS84" in name.upper() else name


def read_geopackage(path: Path) -> Outlines:
    """Objects of a GeoPackage's one layer of features; their class is the column ``label`` or ``class``.

    Raises:
        RequestError: no GeoPackage, none or several layers, a row without a class, or one that is no polygon.
    """
    with _opened(path) as base:
        table, column, number = _layer(path, base)
        names = [row[1] for row in base.execute(f"PRAGMA table_info({_quoted(table)})")]
        label = next((name for name in LABEL_FIELDS if name in names), None)
        if label is None:
            raise RequestError(f"{path}: layer {table} has no column {' or '.join(LABEL_FIELDS)}")
        rows = base.execute(f"SELECT {_quoted(column)}, {_quoted(label)} FROM {_quoted(table)}").fetchall()
        crs = _system(path, base, number)
    rings, labels = [], []
    for row, (blob, name) in enumerate(rows, 1):
        where = f"{path}: layer {table}: row {row}"
        labels.append(_label(where, {label: name}))
        rings.append(_blob_ring(where, blob))
    return Outlines(tuple(rings), tuple(labels), crs)


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
    return str(found[0][0]), str(found[0][1]), int(found[0][2])


def _system(path: Path, base: sqlite3.Connection, number: int) -> str:
    asked = "SELECT organization, organization_coordsys_id, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
    row = base.execute(asked, (number,)).fetchone()
    if row is None or number in (-1, 0):
        raise RequestError(f"{path}: it does not say in which coordinate reference system its outlines are; assign one")
    return f"EPSG:{row[1]}" if str(row[0]).upper() == "EPSG" else str(row[2])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _blob_ring(where: str, blob: Any) -> Points:
    """Of a GeoPackage's geometry: a header, then well-known binary."""
    try:
        magic, _, flags = struct.unpack_from("<2sBB", blob)
        if magic != b"GP":
            raise RequestError(f"{where}: no geometry of a GeoPackage")
        rings = list(_wkb_rings(where, blob, 8 + _ENVELOPES[(flags >> 1) & 7]))
    except (struct.error, TypeError, IndexError, ValueError) as error:
        raise RequestError(f"{where}: its geometry is damaged or empty") from error
    return np.concatenate(rings)


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
        axes = 2 + (kind >= 1000) + (kind >= 3000)
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
