"""Coordinate reference systems as texts of strangers: an EPSG code, or well-known text (WKT), and nothing else.

Whatever else PROJ and GDAL take as a system's name would be more than a name: the path of a file that they open, an address that
they fetch, a definition that names grid files.
"""

from __future__ import annotations

import re
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.scenes.tiff_text import names_file

MOST_TEXT = 64 << 10
_CODE = re.compile(r"(?i)(?:EPSG:)?(\d{4,6})")
_WKT = re.compile(
    r"(?:PROJCS|GEOGCS|GEOCCS|COMPD_CS|LOCAL_CS|PROJCRS|PROJECTEDCRS|GEOGCRS|GEOGRAPHICCRS|GEODCRS|GEODETICCRS|COMPOUNDCRS"
    r"|BOUNDCRS)\s*\[.*\]",
    re.S | re.I,
)
_OWN_CODE = re.compile(r'(?:AUTHORITY\["EPSG",|ID\["EPSG",)"?(\d{4,6})"?\]\]\s*$')
_QUOTED = re.compile(r'"[^"]*"')


def crs_text(value: Any, where: str) -> str:
    """A system as ``EPSG:n`` or as WKT; WKT that ends with its own EPSG code is that code.

    Args:
        value: a text, or the number of an EPSG code. where: file and field, for the message.

    Raises:
        RequestError: it is neither, or its WKT names a file.
    """
    text = str(value).strip()
    if code := _CODE.fullmatch(text):
        return f"EPSG:{code[1]}"
    if not _is_wkt(text):
        shown = "".join(c if c.isprintable() else " " for c in text[:60])
        raise RequestError(f"{where} is '{shown}'; write an EPSG code (EPSG:32633) or WKT there, or leave it out")
    if names_file(text.encode()):
        raise RequestError(
            f"{where} names a file, which is not opened for a scene; write an EPSG code (EPSG:32633) or plain WKT there"
        )
    code = _OWN_CODE.search(text)
    return f"EPSG:{code[1]}" if code else text


def _is_wkt(text: str) -> bool:
    """Whether it begins as WKT does and its brackets close only at its end; braces would make JSON of it."""
    if len(text) > MOST_TEXT or not _WKT.fullmatch(text) or set("{}") & set(text) or text.count('"') % 2:
        return False
    depth = 0
    bare = _QUOTED.sub("", text)
    for place, sign in enumerate(bare):
        depth += {"[": 1, "]": -1}.get(sign, 0)
        if sign == "]" and depth == 0:
            return place == len(bare) - 1
    return False
