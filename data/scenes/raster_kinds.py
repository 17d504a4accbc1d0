"""Kinds of raster files: which drivers are trusted with what, what a file is by its first bytes, and what lies beside one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rsedge.data.errors import RequestError

GEOTIFF = ("GTiff",)
"""Scenes and labels. A cloud-optimised GeoTIFF (COG) is one; GDAL reads it by this driver."""
PICTURES = ("GTiff", "PNG", "JPEG", "WEBP", "BMP")
"""Pictures of sample sets: formats of one image in one file that name no other."""

_FIRST = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP", b"GIF8": "GIF", b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\x89HDF": "HDF5",
    b"CDF": "netCDF", b"PK\3\4": "a zip archive", b"\x1f\x8b": "gzip", b"%PDF": "PDF", b"NITF": "NITF", b"GRIB": "GRIB",
    b"SIMPLE": "FITS", b"EHFA": "ERDAS Imagine", b"SQLite": "a database (GeoPackage, MBTiles)", b"ENVI": "an ENVI header",
}  # fmt: skip
_TEXT = {
    b"<vrtdataset": "a VRT, which names other files",
    b"<gdal_wms": "a description of a web service",
    b"<wcs_gdal": "a description of a web service",
    b"<gdaltileindex": "a tile index",
    b"<mrf_meta": "MRF",
    b"{": "JSON",
    b"<": "XML",
}
# What an .aux.xml may say beside statistics, and a world file always says.
_SAYS_PLACE = re.compile(rb"<(?:SRS|GeoTransform|GCPList)\b")
_SAYS_VALUES = re.compile(rb"<(NoDataValue|Scale|Offset|MaskBand)\b")
_MOST_AUX = 1 << 20
_WORLD = (".tfw", ".tifw", ".wld")


def sniffed(first: bytes) -> str | None:
    """What a file is by its first bytes, in GDAL's name or in words; None where they tell nothing."""
    for start, name in _FIRST.items():
        if first.startswith(start):
            return name
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return "WEBP"
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((name for start, name in _TEXT.items() if text.startswith(start)), None)


def beside(path: Path, placed: bool) -> tuple[str, ...]:
    """What files beside a raster would say of its place, were they read: one line each.

    Args:
        placed: the raster says itself where it lies.

    Raises:
        RequestError: one says which pixels are missing or what values mean, so that without it they would be taken wrongly.
    """
    aux = path.with_name(f"{path.name}.aux.xml")
    text = b""
    if os.access(aux, os.R_OK) and aux.is_file():  # access first: it takes names that are too long
        with aux.open("rb") as file:
            text = file.read(_MOST_AUX)
    if found := _SAYS_VALUES.search(text):
        raise RequestError(
            f"{path}: {aux.name} beside it has {found[1].decode()}, and files beside a raster are not read; write that into the "
            f"raster (gdal_translate {path.name} other.tif), or remove {aux.name} where it does not hold"
        )
    if placed:
        return ()
    found_beside = [aux] if _SAYS_PLACE.search(text) else []
    found_beside += [f for f in (path.with_suffix(s) for s in _WORLD) if f.is_file()]
    return tuple(
        f"{f.name} says where it lies, and files beside a raster are not read; write it into the raster (e.g. gdal_translate)"
        for f in found_beside
    )
