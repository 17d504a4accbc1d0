"""What a reader of scenes gives, whatever the kind of file: bands, how they are called, and windows of their values. Needs no GDAL.

:class:`rsedge.data.scenes.raster.Raster` is one, by GDAL; :class:`PlainRaster` is the base of those that need none, for boards that
have none.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.memory import check_memory
from rsedge.data.scenes.points import Points

Array = npt.NDArray[Any]
MOST_BANDS = 4096
MOST_EDGE = 1 << 24
MOST_BLOCK_BYTES = 1 << 30
"""Of one block (a tile, strip or chunk of all its bands), which is unpacked at once."""
GEOGRAPHIC = "EPSG:4326"
NO_PLACE = "says no place on a map (a coordinate reference system with a transform)"
"""Of a raster whose ``crs`` is None, for messages."""
_UTM = re.compile(r"EPSG:32[67][0-6]\d")
_CACHE_BYTES = 128 << 20
# The WGS 84 ellipsoid: semi-major axis (m) and first eccentricity squared.
_SEMI_MAJOR_M, _ECCENTRICITY_2 = 6378137.0, 6.69437999014e-3
# Rounding of a float32 nodata value that was written as text.
_FLOAT_SLACK = 3e-7


class Window(NamedTuple):
    """Part of a raster, in pixels."""

    col_off: int
    row_off: int
    width: int
    height: int


class Transform(NamedTuple):
    """Pixels to map: x = a col + b row + c, y = d col + e row + f; named as ``affine.Affine`` names them."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 1.0
    f: float = 0.0

    @property
    def is_identity(self) -> bool:
        return self == Transform()

    @property
    def determinant(self) -> float:
        return self.a * self.e - self.b * self.d

    @property
    def first_pixel(self) -> tuple[int, int]:
        """Row and column of the first pixel on its grid, counted from where the map's coordinates are zero."""
        across, down = self.to_pixel(0.0, 0.0)
        # A quarter keeps grids whose pixels begin at whole or half places on one side, whatever the last digit.
        return math.floor(0.25 - down), math.floor(0.25 - across)

    def scaled(self, factor: float) -> Transform:
        """Of pixels ``factor`` times as wide and high, from the same corner; what lies nowhere does so on any grid."""
        return (
            self
            if self.is_identity
            else Transform(self.a * factor, self.b * factor, self.c, self.d * factor, self.e * factor, self.f)
        )

    def shifted(self, col: float, row: float) -> Transform:
        """Of a window that begins at a column and a row."""
        x, y = pixel_to_map(self, col, row)
        return self._replace(c=x, f=y)

    def to_pixel(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Columns and rows of map coordinates, or of many; the reverse of :func:`pixel_to_map`."""
        across, down = x - self.c, y - self.f
        return (
            (self.e * across - self.b * down) / self.determinant,
            (self.a * down - self.d * across) / self.determinant,
        )


@dataclass(frozen=True)
class Blocks:
    """How a file's pixels are stored: the edges of a block, and how many bytes a pixel takes in what has to be unpacked for it."""

    height: int
    width: int
    pixel_bytes: int


class RasterFile(Protocol):
    """An open raster.

    Attributes:
        path: the file. count, height, width: bands, pixels.
        dtypes, nodatavals, scales, offsets, descriptions, colorinterp (``red``, ``alpha``, ...): per band.
        crs: where it lies, None where it does not say (:func:`placed`): what rasterio gives, or a text such as ``EPSG:32633``.
            transform: the identity where it does not say. unread: what is said of it and not read, in words.
        product: the file that a product's metadata lie beside.
    """

    path: Path
    product: Path
    count: int
    height: int
    width: int
    dtypes: tuple[str, ...]
    nodatavals: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    colorinterp: tuple[str, ...]
    crs: Any
    transform: Transform
    unread: tuple[str, ...]

    def tags(self, band: int = 0, ns: str | None = None) -> dict[str, str]:
        """Metadata of the file (0) or a band, of a domain."""

    def blocks(self, indices: Sequence[int]) -> Blocks:
        """How 1-based bands are stored."""

    def points(self) -> Points:
        """Ground control points and rational polynomials."""

    def gsd_m(self) -> float | None:
        """Pixel size on the ground (m), None when it is unknown."""

    def read(self, indices: Sequence[int], window: Any) -> Array:
        """Values [C, h, w] of 1-based bands."""

    def missing(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Where the file says that bands are missing, [C, h, w]."""

    def missing_anywhere(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Where it says so of any of the bands, [h, w]."""

    def close(self) -> None: ...


class PlainRaster(ABC):
    """A raster without GDAL: a row of defaults and what is common to all; :class:`RasterFile` says what each means."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: str,
        *,
        names: Sequence[str] = (),
        wavelengths_nm: Sequence[float | None] = (),
        nodata: float | None = None,
        scales: Sequence[float] = (),
        offsets: Sequence[float] = (),
        crs: str | None = None,
        transform: Transform | None = None,
        tags: Mapping[str, str] | None = None,
        unread: Sequence[str] = (),
    ) -> None:
        """Args:
            shape: bands, rows, columns.

        Raises:
            RequestError: it is out of bounds, or a list has another length than there are bands.
        """
        count, height, width = shape
        if min(shape) < 1:
            raise RequestError(f"{path}: holds no raster bands ({count} bands of {height}x{width} pixels)")
        if count > MOST_BANDS or max(height, width) > MOST_EDGE:
            raise RequestError(
                f"{path}: {count} bands of {height}x{width} pixels; rsedge reads up to {MOST_BANDS} bands and {MOST_EDGE} pixels "
                "along an edge"
            )
        lists = {"band names": names, "wavelengths": wavelengths_nm, "scales": scales, "offsets": offsets}
        for what, found in lists.items():
            if len(found) not in (0, count):
                raise RequestError(f"{path}: has {count} bands and {len(found)} {what}; give one for each, or none")
        self.path = self.product = path
        self.count, self.height, self.width = count, height, width
        self.dtypes, self.nodatavals = (dtype,) * count, (nodata,) * count
        self.scales = tuple(map(float, scales)) or (1.0,) * count
        self.offsets = tuple(map(float, offsets)) or (0.0,) * count
        self.descriptions: tuple[str | None, ...] = tuple(n or None for n in names) or (None,) * count
        self.colorinterp = ("undefined",) * count
        self.transform = transform or Transform()
        self.crs, unplaced = placed(crs, self.transform)
        self.unread = (*unread, *unplaced)
        self._tags, self._waves = dict(tags or {}), tuple(wavelengths_nm) or (None,) * count

    def tags(self, band: int = 0, ns: str | None = None) -> dict[str, str]:
        """The file's, or of a band its centre wavelength."""
        if ns is not None:
            return {}
        if not band:
            return dict(self._tags)
        wave = self._waves[band - 1]
        return {} if wave is None else {"wavelength": f"{wave:g}", "wavelength_units": "nanometers"}

    def blocks(self, indices: Sequence[int]) -> Blocks:
        """Rows, as wide as the raster."""
        return Blocks(1, self.width, len(indices) * np.dtype(self.dtypes[0]).itemsize)

    def points(self) -> Points:
        """None."""
        return Points()

    def gsd_m(self) -> float | None:
        """From the transform, of geographic coordinates and UTM on WGS 84; what other systems measure is not known here."""
        text = str(self.crs)
        if not (text == GEOGRAPHIC or _UTM.fullmatch(text)):
            return None
        row, col = self.height / 2, self.width / 2
        points = [pixel_to_map(self.transform, *p) for p in ((col, row), (col + 1, row), (col, row + 1))]
        distance = ground_distance_m if text == GEOGRAPHIC else _plane_distance
        across, along = (distance(*points[0], *other) for other in points[1:])
        return positive(math.sqrt(across * along))

    @abstractmethod
    def values(self, indices: Sequence[int], window: Any) -> Array:
        """As :meth:`read`; the window fits into memory."""

    def read(self, indices: Sequence[int], window: Any) -> Array:
        """Values [C, h, w] of 1-based bands.

        Raises:
            IntegrityError: the file is truncated or damaged. MissingCapability: so many do not fit into memory.
        """
        size = np.dtype(self.dtypes[0]).itemsize
        check_memory(len(indices) * int(window.height) * int(window.width) * size, self.path)
        return self.values(indices, window)

    def missing(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """By the nodata value, and alpha bands of 0."""
        found = np.stack([equals(v, self.nodatavals[i - 1]) for v, i in zip(values, indices, strict=True)])
        if alpha:
            found |= (self.read(list(alpha), window) == 0).any(axis=0)
        return found

    def missing_anywhere(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """As :meth:`missing`, of any of the bands, [h, w]."""
        return np.asarray(self.missing(indices, window, values, alpha).any(axis=0))

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Lets go of what is open."""

    def __enter__(self) -> PlainRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def bounded_cache() -> Iterator[None]:
    """Holds GDAL's block cache to 128 MiB (its default is a share of the machine's memory), unless the user set it; without GDAL
    there is none."""
    if "GDAL_CACHEMAX" in os.environ or "rasterio" not in sys.modules:
        yield
        return
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


def alpha_bands(raster: RasterFile) -> list[int]:
    """1-based bands that the file calls alpha."""
    return [i for i, colour in enumerate(raster.colorinterp, start=1) if colour == "alpha"]


def whole_number(value: float, dtype: np.dtype[Any]) -> int | None:
    """A value as integers of a type have it, None where they cannot; compared with a float they would all be made floats first."""
    info = np.iinfo(dtype)
    return int(value) if math.isfinite(value) and value == int(value) and info.min <= value <= info.max else None


def equals(values: Array, nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where values are a nodata value, NaN included; float32 as exactly as it can be."""
    if nodata is None:
        return np.zeros(values.shape, dtype=bool)
    if values.dtype.kind not in "uif":
        return np.asarray(values == nodata)
    if values.dtype.kind != "f":
        whole = whole_number(nodata, values.dtype)
        return np.zeros(values.shape, dtype=bool) if whole is None else np.asarray(values == whole)
    return np.isclose(values.astype(np.float64), nodata, rtol=_FLOAT_SLACK, atol=0, equal_nan=True)


def placed(crs: Any, transform: Transform) -> tuple[Any, tuple[str, ...]]:
    """The system that a raster lies in, None where it lies nowhere; and in words that a system is named for nothing.

    The identity is what readers give of a file without a transform, so such a file lies nowhere, whatever system it names. A raster
    that really has it, with pixels of one metre or degree whose rows run north from the origin of the map, does not exist in
    practice. This is the one place that decides it: everything else asks whether ``crs`` is None.
    """
    if crs is None or not transform.is_identity:
        return crs, ()
    words = (
        f"names {str(crs)[:60]} but has no transform, so it lies nowhere on that map; write the transform into it (e.g. "
        "gdal_edit.py -a_ullr)"
    )
    return None, (words,)


def pixel_to_map(transform: Any, col: Any, row: Any) -> tuple[Any, Any]:
    """Map coordinates of a pixel's upper left corner, or of many."""
    x = transform.a * col + transform.b * row + transform.c
    return x, transform.d * col + transform.e * row + transform.f


def ground_distance_m(lon_a: float, lat_a: float, lon_b: float, lat_b: float) -> float:
    """Short distance on the ellipsoid, by its radii of curvature in the meridian and across it."""
    lat = math.radians(0.5 * (lat_a + lat_b))
    w = 1 - _ECCENTRICITY_2 * math.sin(lat) ** 2
    turn = math.remainder(lon_b - lon_a, 360.0)
    north = math.radians(lat_b - lat_a) * _SEMI_MAJOR_M * (1 - _ECCENTRICITY_2) / w**1.5
    east = math.radians(turn) * _SEMI_MAJOR_M / math.sqrt(w) * math.cos(lat)
    return math.hypot(north, east)


def azimuths(start: Array, end: Array) -> Array:
    """Directions (n,) of short lines on the ellipsoid between points (n, 2) of longitude and latitude: degrees clockwise from true
    north, 0 to 360."""
    middle = np.radians((start[:, 1] + end[:, 1]) / 2)
    turn = np.remainder(end[:, 0] - start[:, 0] + 180, 360) - 180
    meridian = (1 - _ECCENTRICITY_2) / (1 - _ECCENTRICITY_2 * np.sin(middle) ** 2)
    return np.asarray(np.degrees(np.arctan2(turn * np.cos(middle), (end[:, 1] - start[:, 1]) * meridian)) % 360)


def _plane_distance(x_a: float, y_a: float, x_b: float, y_b: float) -> float:
    return math.hypot(x_b - x_a, y_b - y_a)


def positive(metres: float) -> float | None:
    """A length, None where rounding or overflow left none."""
    return metres if 0 < metres < math.inf else None
