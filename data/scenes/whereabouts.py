"""Where on Earth and when a scene was taken, as far as its file says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.scenes.kinds import kind_of
from rsedge.data.scenes.raster import GDAL_ERRORS, degrees, pixel_to_map
from rsedge.data.scenes.stac import item_of

Bounds = tuple[float, float, float, float]
"""West, south, east, north (degrees, WGS 84)."""


def bounds_of(crs: Any, transform: Any, height: int, width: int) -> Bounds | None:
    """Of a raster's corners; None where it has no place on Earth."""
    if crs is None or transform is None:
        return None
    corners = [pixel_to_map(transform, x, y) for x in (0, width) for y in (0, height)]
    try:
        lon, lat = degrees(crs, [x for x, _ in corners], [y for _, y in corners])
    except GDAL_ERRORS:
        return None
    if not all(map(math.isfinite, (*lon, *lat))):
        return None
    west, east, south, north = (round(float(v), 5) for v in (min(lon), max(lon), min(lat), max(lat)))
    return west, south, east, north


def taken_at(path: Path) -> str | None:
    """The time of a STAC item; other files say at most when they were written."""
    try:
        found = item_of(path).properties.get("datetime") if kind_of(path).name == "stac" else None
    except RequestError:
        return None
    return found if isinstance(found, str) else None
