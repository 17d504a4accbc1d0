"""Where a raster lies, as an ENVI header says it: ``map info``, and ``coordinate system string`` (WKT) for what that cannot say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.scenes.crs_text import crs_text
from rsedge.data.scenes.raster_file import GEOGRAPHIC, Transform

_UTM = re.compile(r"EPSG:32([67])([0-6]\d)")
_WKT_1 = re.compile(r"(?:PROJCS|GEOGCS|COMPD_CS|LOCAL_CS)\s*\[")
"""What readers of ENVI files take; they know no WKT 2."""
_METHOD = re.compile(r'PROJECTION\["([A-Za-z0-9_ ]+)"')
_ARBITRARY = "arbitrary"
_SLACK = 1e-9


def read_place(fields: Mapping[str, str], header: Path) -> dict[str, Any]:
    """CRS and transform of a header: UTM and geographic coordinates on WGS 84 by ``map info``, others by WKT; what is not read is
    told of.

    Raises:
        RequestError: a field that makes no sense.
    """
    parts = [part.strip() for part in fields.get("map info", "").replace("\n", " ").split(",")]
    if len(parts) < 7:
        return {}
    transform = _read_transform(parts, header)
    crs = _of_map_info(parts) or _of_wkt(fields.get("coordinate system string", ""), header)
    if crs is None and parts[0].lower() != _ARBITRARY:
        return {
            "unread": [
                f"its map info is of {parts[0]}, and without WKT as its coordinate system string UTM and geographic coordinates on "
                "WGS-84 alone are read; write that WKT into the header"
            ]
        }
    return {"crs": crs, "transform": transform}


def place_fields(transform: Transform | None, crs: Any, scene: Path) -> dict[str, str]:
    """``map info`` and, where that needs it, ``coordinate system string`` of a grid; {} of one that lies nowhere.

    Args:
        crs: rasterio's, a text (``EPSG:n`` or WKT), or None. scene: that lies there, for the message.

    Raises:
        RequestError: a header cannot say it.
    """
    if transform is None or transform.is_identity:
        return {}
    across, down, turn = _steps(transform, scene)
    place = f"1, 1, {transform.c!r}, {transform.f!r}, {across!r}, {down!r}"
    rotation = f", rotation={turn!r}" if turn else ""
    text, zone = str(crs), _UTM.fullmatch(str(crs))
    if crs is None:
        return {"map info": f"{{Arbitrary, {place}{rotation}}}"}
    if text == GEOGRAPHIC:
        return {"map info": f"{{Geographic Lat/Lon, {place}, WGS-84, units=Degrees{rotation}}}"}
    if zone is not None:
        side = "North" if zone[1] == "6" else "South"
        return {"map info": f"{{UTM, {place}, {int(zone[2])}, {side}, WGS-84, units=Meters{rotation}}}"}
    wkt = _wkt(crs, scene)
    method = _METHOD.search(wkt)
    name = method[1].replace("_", " ") if method else "Geographic Lat/Lon"
    return {"map info": f"{{{name}, {place}{rotation}}}", "coordinate system string": f"{{{wkt}}}"}


def _refused(scene: Path, why: str) -> RequestError:
    return RequestError(f"{scene}: an ENVI header cannot say where it lies: {why}")


def _steps(transform: Transform, scene: Path) -> tuple[float, float, float]:
    """Width and height of a pixel, the latter negative where rows run north, and how far they are turned (degrees)."""
    a, b, _, d, e, _ = transform
    if not b and not d and a > 0:
        return a, -e, 0.0
    size, turn = math.hypot(a, d), math.atan2(d, a)
    apart = max(abs(b - size * math.sin(turn)), abs(e + size * math.cos(turn)))
    # Of turned pixels that are not square, or half a turn, readers make different things.
    if apart > _SLACK * size or (not d and a < 0):
        raise _refused(
            scene,
            "its pixels are sheared, mirrored, or turned and not square; write a GeoTIFF (.tif), or warp the scene",
        )
    return size, size, math.degrees(turn)


def _wkt(crs: Any, scene: Path) -> str:
    text = str(crs)
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
    except ModuleNotFoundError as error:
        if _WKT_1.match(text):
            return " ".join(text.split())
        raise _refused(
            scene,
            f"{text[:60]} as WKT needs rasterio, which is not here; give the scene its crs as WKT 1, or without one",
        ) from error
    try:
        wkt = str(CRS.from_user_input(crs).to_wkt(version="WKT1_GDAL"))
    except CRSError as error:
        raise _refused(scene, f"{text[:60]} has no WKT 1 ({error}); write a GeoTIFF (.tif)") from error
    if not _WKT_1.match(wkt) or set("{}\n") & set(wkt):
        raise _refused(scene, f"{text[:60]} has no WKT 1; write a GeoTIFF (.tif)")
    return wkt


def _read_transform(parts: Sequence[str], header: Path) -> Transform:
    col, row, x, y, dx, dy = (_number(part, header) for part in parts[1:7])
    turns = (_number(p.partition("=")[2], header) for p in parts if p.lower().startswith("rotation"))
    turn = math.radians(next(turns, 0.0))
    cos, sin = math.cos(turn), math.sin(turn)
    a, b, d, e = dx * cos, dy * sin, dx * sin, -dy * cos
    transform = Transform(a, b, x, d, e, y).shifted(1 - col, 1 - row)
    if transform.determinant == 0 or not all(map(math.isfinite, transform)):
        raise RequestError(f"{header}: map info gives pixels of no size; mend it")
    return transform


def _number(text: str, header: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RequestError(f"{header}: map info = {text[:40]}; a number is needed") from error


def _of_map_info(parts: Sequence[str]) -> str | None:
    name, wgs = parts[0].lower(), any(p.lower().replace(" ", "") in ("wgs-84", "wgs84", "wgs_84") for p in parts)
    if wgs and name.startswith("geographic"):
        return GEOGRAPHIC
    if wgs and name == "utm" and len(parts) > 8 and re.fullmatch(r"[1-9]|[1-5]\d|60", parts[7]):
        return f"EPSG:{326 if parts[8].lower().startswith('n') else 327}{int(parts[7]):02d}"
    return None


def _of_wkt(text: str, header: Path) -> str | None:
    """A header's own system; None where it is no plain WKT, as there are many."""
    try:
        return crs_text(text, str(header)) if _WKT_1.match(text) else None
    except RequestError:
        return None
