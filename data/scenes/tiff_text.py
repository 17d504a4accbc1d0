"""What a GeoTIFF says in words of its coordinate reference system, read before GDAL opens the file.

These words can be a definition for PROJ, and PROJ opens the grid files that one names as soon as GDAL opens the raster: any file of
the machine, or a pipe that makes the process wait for ever. So a definition with the path of a file in it is refused. The names of
grids that PROJ brings itself have no folder in them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rsedge.data.errors import RequestError

_GEO_ASCII = 34737
_MOST_ENTRIES, _MOST_TEXT = 4096, 1 << 20
_DEFINES = re.compile(rb"PROJ4|PARAMETERFILE|GRIDS?\b|GRIDSHIFT|\+\s*(?:PROJ|INIT|FILE)\b", re.I)
_PATH = re.compile(rb"\S[/\\]|[/\\]\S")
"""No path: the sign between spaces in ``WGS 84 / UTM zone 33N``."""


def names_file(text: bytes) -> bool:
    """Whether the words of a coordinate reference system are a definition with the path of a file in it."""
    return bool(_DEFINES.search(text) and _PATH.search(text))


def check_geo_text(file: BinaryIO, path: Path) -> None:
    """Refuses a TIFF whose coordinate reference system names files by a path; other kinds of files pass.

    Raises:
        RequestError: it does, or has more text than any system needs.
    """
    for text in _geo_texts(file, path):
        if names_file(text):
            raise RequestError(
                f"{path}: its coordinate reference system names a file, which is not opened for a raster; give it a plain one "
                "(e.g. gdal_translate -a_srs EPSG:32633)"
            )


def _geo_texts(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The texts under the tag of GeoTIFF's words; all of them, should there be several."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    offset, counted = (f"{order}Q", f"{order}Q") if big else (f"{order}I", f"{order}H")
    try:
        file.seek(struct.unpack(offset, head[8:16] if big else head[4:8])[0])
        entries = struct.unpack(counted, file.read(struct.calcsize(counted)))[0]
        step, start = (20, 12) if big else (12, 8)
        directory = file.read(min(entries, _MOST_ENTRIES) * step)
        for at in range(0, len(directory) - step + 1, step):
            if struct.unpack_from(f"{order}H", directory, at)[0] == _GEO_ASCII:
                yield _text(file, directory[at : at + step], start, offset, path)
    except (struct.error, OverflowError, ValueError, OSError):
        return  # damaged: GDAL says how


def _text(file: BinaryIO, entry: bytes, start: int, offset: str, path: Path) -> bytes:
    count = struct.unpack_from(offset, entry, 4)[0]
    if count <= len(entry) - start:
        return entry[start : start + count]
    if count > _MOST_TEXT:
        raise RequestError(f"{path}: has {count} bytes of text on its coordinate reference system; it is damaged")
    file.seek(struct.unpack_from(offset, entry, start)[0])
    return file.read(count)
