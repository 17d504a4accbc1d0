"""The words of a GeoTIFF's coordinate reference system: none of them opens a file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from rsedge.data.errors import RequestError
from rsedge.data.scenes.tiff_text import check_geo_text

_TAG = 34737


def tiff(text: bytes, big: bool, order: str, others: int = 2) -> io.BytesIO:
    """A TIFF with nothing but a directory, in which the text is the last entry."""
    mark = b"II" if order == "<" else b"MM"
    offset, head = ("Q", 16) if big else ("I", 8)
    entry = f"{order}HH{offset}"
    start = struct.calcsize(entry)
    counted = struct.pack(f"{order}{'Q' if big else 'H'}", others + 1)
    size = len(counted) + (others + 1) * (start + (8 if big else 4))
    first = struct.pack(f"{order}HHHQ", 43, 8, 0, head) if big else struct.pack(f"{order}HI", 42, head)
    held = text.ljust(8 if big else 4, b"\0") if len(text) <= (8 if big else 4) else None
    value = held or struct.pack(f"{order}{offset}", head + size)
    entries = b"".join(struct.pack(entry, 256 + i, 3, 1) + bytes(8 if big else 4) for i in range(others))
    entries += struct.pack(entry, _TAG, 2, len(text)) + value
    return io.BytesIO(mark + first + counted + entries + (b"" if held else text))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        b'ESRI PE String = GEOGCS["x",DATUM["x",EXTENSION["PROJ4_GRIDS","/etc/passwd"]]]|',
        b'x|EXTENSION["Proj4","+proj=longlat +nadgrids=@../x"]',
        b'BOUNDCRS[METHOD["NTv2"],PARAMETERFILE["Latitude and longitude difference file","~/x"]]',
        b"+init=\\\\server\\x:1",
    ],
)
def test_systems_that_name_files_are_refused(text: bytes, big: bool, order: str) -> None:
    with pytest.raises(RequestError, match="names a file, which is not opened"):
        check_geo_text(tiff(text, big, order), Path("s.tif"))


@pytest.mark.parametrize(
    "text",
    [
        b"WGS 84 / UTM zone 33N|WGS 84|",
        b'WGS 84 / Pseudo-Mercator|EXTENSION["PROJ4","+proj=merc +a=6378137 +nadgrids=@null +wktext"]|',
        b'VERT_DATUM["x",2005,EXTENSION["PROJ4_GRIDS","egm96_15.gtx"]]',
        b"see http://example.org/x|",
        b"",
        b"abc|",
    ],
)
def test_plain_systems_pass(text: bytes) -> None:
    for big in (False, True):
        check_geo_text(tiff(text, big, "<"), Path("s.tif"))


def test_what_is_no_tiff_or_a_damaged_one_is_left_to_gdal() -> None:
    whole = tiff(b"x" * 40, False, "<").getvalue()
    for content in (
        b"",
        b"II",
        b"\x89PNG" + bytes(40),
        b"II*\0\xff\xff\xff\xff",
        *(whole[:n] for n in range(len(whole))),
    ):
        check_geo_text(io.BytesIO(content), Path("s.tif"))
