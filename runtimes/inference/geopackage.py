"""GeoPackage (OGC 12-128, version 1.3) by SQLite alone: one layer of polygons with their attributes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import atomic_path
from rsedge.data.scenes.raster_file import GEOGRAPHIC

SUFFIX = ".gpkg"
_APPLICATION, _VERSION = 0x47504B47, 10300
_OWN_SYSTEM = 100_000
"""Number of a coordinate reference system that has none of EPSG's."""
_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],'
    'PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],'
    'AUTHORITY["EPSG","4326"]]'
)
_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY, organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
  description TEXT DEFAULT \'\', last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE,
  srs_id INTEGER REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL REFERENCES gpkg_contents(table_name), column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL REFERENCES gpkg_spatial_ref_sys(srs_id), z TINYINT NOT NULL,
  m TINYINT NOT NULL, PRIMARY KEY (table_name, column_name));
"""
_KINDS = {str: "TEXT", int: "INTEGER", float: "DOUBLE"}
_UNFINISHED = ("-wal", "-journal")
"""What SQLite keeps beside a file until it is in the file, and lays over whatever has its name by then."""


def check(path: Path, crs: Any) -> None:
    """Before any work: whether :func:`write_polygons` can write there, of a system.

    Raises:
        RequestError: nobody knows the system here, or another program has an older file of the name open. MissingCapability: the
            system's definition needs rasterio, which is not here.
    """
    _system(crs, path)
    for end in _UNFINISHED:
        other = path.with_name(path.name + end)
        if other.is_file() and other.stat().st_size:
            raise RequestError(
                f"{path}: {other.name} lies beside it and would be laid over the new file: another program has it open, or "
                "left it unfinished; close it there, or choose another name"
            )


def write_polygons(
    path: Path,
    layer: str,
    rings: npt.NDArray[np.float64],
    fields: Mapping[str, type],
    rows: Sequence[Sequence[Any]],
    crs: Any,
    about: Mapping[str, Any],
) -> None:
    """Writes a layer; the file appears whole.

    Args:
        rings: closed outer rings (n, points, 2) in the coordinate reference system.
        fields: their attributes, in the order of ``rows``.
        crs: rasterio\'s, or a text such as ``EPSG:4326``.
        about: where it comes from; kept as JSON in the layer\'s description.

    Raises:
        RequestError, MissingCapability: as :func:`check`; the disk is full.
    """
    check(path, crs)
    system = _system(crs, path)
    with atomic_path(path) as temporary, _told(path), contextlib.closing(sqlite3.connect(temporary)) as base, base:
        base.execute(f"PRAGMA application_id = {_APPLICATION}")
        base.execute(f"PRAGMA user_version = {_VERSION}")
        base.executescript(_TABLES)
        known = [("Undefined Cartesian", -1, "NONE", -1, "undefined", ""), ("Undefined geographic", 0, "NONE", 0, "undefined", ""),
                 ("WGS 84", 4326, "EPSG", 4326, _WGS84, "")]  # fmt: skip
        base.executemany("INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", [*known, system])
        columns = ", ".join(f'"{name}" {_KINDS[kind]}' for name, kind in fields.items())
        base.execute(
            f'CREATE TABLE "{layer}" (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, {columns})'
        )
        marks = ", ".join("?" * (1 + len(fields)))
        names = ", ".join(f'"{name}"' for name in fields)
        base.executemany(
            f'INSERT INTO "{layer}" (geom, {names}) VALUES ({marks})',
            ((_blob(ring, system[1]), *row) for ring, row in zip(rings, rows, strict=True)),
        )
        bounds = [None] * 4 if not len(rings) else [*rings.min((0, 1)).tolist(), *rings.max((0, 1)).tolist()]
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        text = json.dumps(dict(about), ensure_ascii=False, allow_nan=False)
        base.execute("INSERT INTO gpkg_contents VALUES (?, 'features', ?, ?, ?, ?, ?, ?, ?, ?)",
                     (layer, layer, text, now, *bounds, system[1]))  # fmt: skip
        base.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'POLYGON', ?, 0, 0)", (layer, system[1]))


def polygon(ring: npt.NDArray[np.float64]) -> bytes:
    """A polygon of one closed ring (points, 2) as well-known binary."""
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + np.ascontiguousarray(ring, "<f8").tobytes()


def _blob(ring: npt.NDArray[np.float64], system: int) -> bytes:
    low, high = ring.min(0), ring.max(0)
    head = struct.pack("<2sBBi4d", b"GP", 0, 0b11, system, low[0], high[0], low[1], high[1])
    return head + polygon(ring)


def _system(crs: Any, path: Path) -> tuple[str, int, str, int, str, str]:
    """A row of ``gpkg_spatial_ref_sys``."""
    if crs == GEOGRAPHIC:
        return "WGS 84", 4326, "EPSG", 4326, _WGS84, ""
    if isinstance(crs, str):
        try:
            from rsedge.data.scenes.raster import check_known
        except ImportError as error:
            raise MissingCapability(
                f"{path}: the definition of {crs} needs rasterio; install it, or write .csv"
            ) from error
        crs = check_known(crs, path)
    code = crs.to_epsg()
    if code is None:
        return "of the scene", _OWN_SYSTEM, "NONE", _OWN_SYSTEM, str(crs.to_wkt()), ""
    return f"EPSG:{code}", int(code), "EPSG", int(code), str(crs.to_wkt()), ""


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise MissingCapability(
            f"{path}: could not be written whole ({error}); free space, and run it again"
        ) from error
    except (sqlite3.Error, OverflowError) as error:
        raise RequestError(f"{path}: cannot be written as a GeoPackage ({error})") from error
