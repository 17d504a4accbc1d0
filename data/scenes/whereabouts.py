"""Where on Earth and when a scene was taken, as far as its file says so. Needs no GDAL where the CRS is EPSG:4326."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.scenes.kinds import kind_of
from rsedge.data.scenes.raster_file import GEOGRAPHIC, Transform, pixel_to_map
from rsedge.data.scenes.stac import item_of

Bounds = tuple[float, float, float, float]
"""West, south, east, north (degrees, WGS 84)."""


def footprint_of(crs: Any, transform: Transform, height: int, width: int) -> list[list[float]] | None:
    """Longitude and latitude (degrees) of a raster's corners, closed: upper left, lower left, lower right, upper right, upper left.

    None where it has no place on Earth, or nobody here can tell.
    """
    if crs is None:
        return None
    corners = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]
    xs, ys = zip(*(pixel_to_map(transform, *corner) for corner in corners), strict=True)
    places = np.stack(lonlat(crs, xs, ys), 1).round(7)
    return places.tolist() if np.isfinite(places).all() else None


def bounds_of(crs: Any, transform: Transform, height: int, width: int) -> Bounds | None:
    """Of a raster's corners; None as :func:`footprint_of`."""
    ring = footprint_of(crs, transform, height, width)
    if ring is None:
        return None
    lon, lat = zip(*ring, strict=True)
    west, south, east, north = (round(v, 5) for v in (min(lon), min(lat), max(lon), max(lat)))
    return west, south, east, north


def lonlat(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    """Longitude and latitude (degrees) of places in a CRS; NaN where nobody can tell, without GDAL for instance."""
    if crs == GEOGRAPHIC:
        return xs, ys
    unknown = [float("nan")] * len(xs)
    try:
        from rsedge.data.scenes.raster import GDAL_ERRORS, degrees
    except ImportError:
        return unknown, unknown
    try:
        return degrees(crs, xs, ys)
    except GDAL_ERRORS:
        return unknown, unknown


def taken_at(path: Path) -> str | None:
    """The time of a STAC item; other files say at most when they were written."""
    try:
        found = item_of(path).properties.get("datetime") if kind_of(path).name == "stac" else None
    except RequestError:
        return None
    return found if isinstance(found, str) else None
