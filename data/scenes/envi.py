"""Raw rasters with an ENVI header: band sequential (BSQ), interleaved by line (BIL) or by pixel (BIP). Needs no GDAL.

The header is text of ``key = value``, values of several in braces. Bands go by their names and wavelengths; of a spectrometer's
many bands the one nearest to each band that has a name (:data:`rsedge.data.band_names.WAVELENGTHS_NM`) counts, others have none.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import require_file
from rsedge.data.scenes.envi_place import read_place
from rsedge.data.scenes.raster_file import Array, PlainRaster

HEADER = ".hdr"
DATA_SUFFIXES = (".img", ".dat", ".raw", ".bil", ".bsq", ".bip", ".bin", ".sli", "")
_TYPES = {1: "uint8", 2: "int16", 3: "int32", 4: "float32", 5: "float64", 12: "uint16", 13: "uint32"}
_ORDERS = ("bsq", "bil", "bip")
_MOST_HEADER = 4 << 20
_DENSE_NM = 25.0
"""Bands closer than this are a spectrometer's."""
_FIELD = re.compile(r"^[ \t]*([^={}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", re.M)


def envi_files(path: Path) -> list[Path]:
    """The header and the data of a path that is one of them; the path named comes first.

    Raises:
        RequestError: one is missing.
    """
    if path.suffix.lower() == HEADER:
        endings = (*DATA_SUFFIXES, *(suffix.upper() for suffix in DATA_SUFFIXES))
        places = [path.with_suffix("").with_name(path.stem + ending) for ending in endings]
        data = next((place for place in places if place.is_file()), None)
        if data is None:
            raise RequestError(
                f"{path}: the data of this header are not beside it (looked for {path.stem} with "
                f"{', '.join(s or 'no suffix' for s in DATA_SUFFIXES)}); put them there"
            )
        return [path, data]
    headers = [path.with_suffix(HEADER), path.with_name(path.name + HEADER)]
    header = next((place for place in headers if place.is_file()), None)
    if header is None:
        raise RequestError(f"{path}: has no ENVI header beside it ({headers[0].name} or {headers[1].name}); write one")
    return [path, header]


def is_envi(path: Path) -> bool:
    """Whether a file has an ENVI header beside it that says so."""
    if not path.is_file():
        return False
    places = [path.with_suffix(HEADER), path.with_name(path.name + HEADER)]
    return any(os.access(place, os.R_OK) and place.is_file() and _begins(place) for place in places)


def _begins(header: Path) -> bool:
    with header.open("rb") as file:
        return file.read(4) == b"ENVI"


def read_header(path: Path) -> dict[str, str]:
    """Fields of a header by their names in lower case; braces are taken off.

    Raises:
        RequestError: no ENVI header, or one that cannot be read.
    """
    require_file(path)
    with path.open("rb") as file:
        content = file.read(_MOST_HEADER + 1)
    if not content.startswith(b"ENVI"):
        raise RequestError(f"{path}: is no ENVI header (its first line is not ENVI)")
    if len(content) > _MOST_HEADER:
        raise RequestError(f"{path}: is larger than {_MOST_HEADER} bytes, more than a header has")
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return {" ".join(k.lower().split()): v.strip().strip("{}").strip() for k, v in _FIELD.findall(text)}


class EnviRaster(PlainRaster):
    """An ENVI file, read by windows."""

    def __init__(self, path: Path) -> None:
        """Raises:
        RequestError: header or data are missing, or a field is missing or makes no sense; names it.
        IntegrityError: the data are shorter than the header says.
        """
        files = envi_files(path)
        header, data = sorted(files, key=lambda f: f.suffix.lower() != HEADER)
        fields = read_header(header)
        count, height, width = (_whole(fields, name, header) for name in ("bands", "lines", "samples"))
        kind = _TYPES.get(_whole(fields, "data type", header))
        if kind is None:
            raise RequestError(
                f"{header}: data type {fields['data type']} is not read; rsedge reads "
                f"{', '.join(f'{n} ({t})' for n, t in _TYPES.items())}"
            )
        self._order = fields.get("interleave", "bsq").lower()
        if self._order not in _ORDERS:
            raise RequestError(f"{header}: interleave = {self._order}; it is one of {', '.join(_ORDERS)}")
        self._start = _whole(fields, "header offset", header, 0, least=0)
        self._dtype = np.dtype(kind).newbyteorder(">" if fields.get("byte order", "0").strip() == "1" else "<")
        super().__init__(
            path, (count, height, width), kind, names=_names(fields, count), wavelengths_nm=_wavelengths(fields, count, header),
            nodata=_number(fields, "data ignore value", header), **_units(fields, count, header), **read_place(fields, header),
            tags={k.replace(" ", "_"): v for k, v in fields.items() if "sensor" in k},
        )  # fmt: skip
        self.product = data
        needed = self._start + count * height * width * self._dtype.itemsize
        if (size := require_file(data).stat().st_size) < needed:
            raise IntegrityError(f"{data}: has {size} bytes, its header says {needed}; it is truncated, copy it again")
        self._data, self._file = data, data.open("rb")

    def values(self, indices: Sequence[int], window: Any) -> Array:
        bands = np.asarray(indices) - 1
        row, col, height, width = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
        out = np.empty((len(bands), height, width), self.dtypes[0])
        whole = width == self.width
        if self._order == "bsq":
            for k, band in enumerate(bands):
                first = int(band) * self.height * self.width
                if whole:
                    out[k] = self._take(first + row * width, height * width).reshape(height, width)
                else:
                    for y in range(height):
                        out[k, y] = self._take(first + (row + y) * self.width + col, width)
            return out
        for y in range(height):
            first = (row + y) * self.width * self.count
            if self._order == "bip":
                out[:, y] = self._take(first + col * self.count, width * self.count).reshape(width, -1)[:, bands].T
            elif whole:
                out[:, y] = self._take(first, width * self.count).reshape(-1, width)[bands]
            else:
                for k, band in enumerate(bands):
                    out[k, y] = self._take(first + int(band) * self.width + col, width)
        return out

    def close(self) -> None:
        self._file.close()

    def _take(self, first: int, count: int) -> Array:
        """Values one after the other in the file."""
        size = self._dtype.itemsize
        content = os.pread(self._file.fileno(), count * size, self._start + first * size)
        if len(content) < count * size:
            raise IntegrityError(f"{self._data}: ends before its header says; it was cut meanwhile, copy it again")
        return np.frombuffer(content, self._dtype)


def open_envi(path: Path, *_: Any) -> EnviRaster:
    """An ENVI file by its header or its data; raises as :class:`EnviRaster`."""
    return EnviRaster(path)


def write_header(
    path: Path, shape: tuple[int, int, int], dtype: str, names: Sequence[str], nodata: float | None, more: Mapping[str, str],
) -> bytes:  # fmt: skip
    """The header of band-sequential data in this machine's byte order.

    Args:
        path: of the data, for the message. more: further fields, such as those of
            :func:`rsedge.data.scenes.envi_place.place_fields`.

    Raises:
        RequestError: a type that ENVI does not have.
    """
    numbers = {name: number for number, name in _TYPES.items()}
    if dtype not in numbers:
        raise RequestError(f"{path}: ENVI has no type {dtype}")
    count, height, width = shape
    fields = {
        "samples": str(width), "lines": str(height), "bands": str(count), "header offset": "0", "file type": "ENVI Standard",
        "data type": str(numbers[dtype]), "interleave": "bsq", "byte order": str(int(sys.byteorder == "big")),
        "band names": "{" + ", ".join(_clean(n) for n in names) + "}",
    }  # fmt: skip
    if nodata is not None:
        fields["data ignore value"] = f"{nodata:g}"
    return "".join(["ENVI\n", *(f"{k} = {v}\n" for k, v in {**fields, **more}.items())]).encode()


def _clean(text: str) -> str:
    """A text that may stand in braces."""
    return re.sub(r"[{},\n\r=]", " ", text).strip()


def _whole(fields: Mapping[str, str], name: str, header: Path, default: int | None = None, least: int = 1) -> int:
    text = fields.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,12}", text) or int(text) < least:
        raise RequestError(f"{header}: {name} = {text[:40] or 'nothing'}; a whole number from {least} on is needed")
    return int(text)


def _number(fields: Mapping[str, str], name: str, header: Path) -> float | None:
    return None if name not in fields else _float(fields[name], name, header)


def _float(text: str, name: str, header: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RequestError(f"{header}: {name} = {text[:40]}; a number is needed") from error


def _list(fields: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in fields.get(name, "").replace("\n", " ").split(",")] if fields.get(name) else []


def _names(fields: Mapping[str, str], count: int) -> list[str]:
    """Band names; those that the bad bands list leaves out have none, and so have those that only count the bands."""
    names = _list(fields, "band names")
    if (
        len(names) == count
        and all(re.fullmatch(rf"(?i)band[ _-]?0*{i}", n) for i, n in enumerate(names, 1))
        and "wavelength" in fields
    ):
        names = [""] * count
    good = _list(fields, "bbl")
    if len(good) == count and names:
        names = ["" if one.strip() in ("0", "0.0") else name for name, one in zip(names, good, strict=True)]
    return names


def _wavelengths(fields: Mapping[str, str], count: int, header: Path) -> list[float | None]:
    """Centre wavelengths (nm); of a spectrometer's those alone that are nearest to a band with a name."""
    waves = [_float(text, "wavelength", header) for text in _list(fields, "wavelength")]
    if not waves:
        return []
    unit = fields.get("wavelength units", "").lower()
    micro = unit.startswith(("um", "micro", "\u00b5", "\u03bc")) or (not unit.startswith("n") and max(waves) < 100)
    found: list[float | None] = [1000 * w if micro else w for w in waves]
    good = _list(fields, "bbl")
    if len(good) == len(found):
        found = [None if one in ("0", "0.0") else w for w, one in zip(found, good, strict=True)]
    known = sorted(w for w in found if w is not None)
    if len(known) > len(WAVELENGTHS_NM) and np.median(np.diff(known)) < _DENSE_NM:
        nearest = {min(known, key=lambda w, centre=centre: abs(w - centre)) for centre in WAVELENGTHS_NM.values()}  # type: ignore[misc]
        found = [w if w in nearest else None for w in found]
    return found


def _units(fields: Mapping[str, str], count: int, header: Path) -> dict[str, Any]:
    """Scales and offsets by gains and offsets of the bands, or by one factor of reflectance."""
    gains = [_float(t, "data gain values", header) for t in _list(fields, "data gain values")]
    offsets = [_float(t, "data offset values", header) for t in _list(fields, "data offset values")]
    factor = _number(fields, "reflectance scale factor", header)
    if not gains and factor is not None:
        if not factor > 0 or not math.isfinite(factor):
            raise RequestError(f"{header}: reflectance scale factor = {factor:g}; a positive number is needed")
        gains = [1 / factor] * count
    return {"scales": gains, "offsets": offsets}
