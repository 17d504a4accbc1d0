"""Rasters through GDAL: the one place that opens them, windows, where pixels are missing, and what a pixel measures on the ground.

A raster is a file of numbers and no program: only the drivers that the caller names open it, nothing beside it is read (but
for a mask, ``.msk``, itself a plain GeoTIFF), nothing is fetched from a network, and its header is held against bounds before any
pixel is read. What GDAL complains about comes out as :class:`RequestError` or, of pixels, :class:`IntegrityError`.

Missing is what a file declares missing in any of its ways, all of which count: nodata values of the bands, a mask of the whole file
(inside it or a ``.msk`` beside it), and an alpha band, wherever it stands. GDAL's own masks heed one of them only.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from rsedge.data.errors import IntegrityError, RequestError, RsedgeError
from rsedge.data.files import GDAL_VIRTUAL, check_name, require_file
from rsedge.data.memory import check_memory
from rsedge.data.scenes.raster_kinds import GEOTIFF, beside, sniffed
from rsedge.data.scenes.tiff_text import check_geo_text

Array = npt.NDArray[Any]

CLASSES_TAG = "rsedge_classes"
"""Of what rsedge made of a scene: names of its classes or bands, as JSON."""
MOST_BANDS = 4096
MOST_EDGE = 1 << 24
MOST_BLOCK_BYTES = 1 << 30
"""Of one block (a tile or strip of all its bands), which GDAL unpacks at once."""
_MOST_RATIO, _RATIO_FROM = 50_000, 256 << 20

_CACHE_BYTES = 128 << 20
# Neither the network, nor what lies beside a file, nor more bands than we take.
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_MAX_BAND_COUNT": MOST_BANDS,
}
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError, UnicodeError)
"""What rasterio raises of a file's content; ``CPLE_BaseError`` (GDAL's own) passes through some of its functions as it is."""
# The WGS 84 ellipsoid: semi-major axis (m) and first eccentricity squared.
_SEMI_MAJOR_M, _ECCENTRICITY_2 = 6378137.0, 6.69437999014e-3
# Rounding of a float32 nodata value that was written as text.
_FLOAT_SLACK = 3e-7


@contextlib.contextmanager
def bounded_cache() -> Iterator[None]:
    """Holds GDAL's block cache to 128 MiB (its default is a share of the machine's memory), unless the user set it."""
    if "GDAL_CACHEMAX" in os.environ:
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


@contextlib.contextmanager
def gdal_errors(what: str, kind: type[RsedgeError] = RequestError) -> Iterator[None]:
    """What GDAL raises inside comes out as ``kind``, after the words ``what``."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise kind(f"{what} ({' '.join(str(error).split())[:300]})") from error


class Raster:
    """An open raster: its header, read once, and windows of its values.

    Attributes:
        path: the file; ``an image in memory`` of bytes. driver: GDAL's name of its format. count, height, width: bands, pixels.
        dtypes, nodatavals, scales, offsets, descriptions, colorinterp: per band, as GDAL has them. crs, transform: where it lies,
            None and the identity where it does not say. unread: what lies beside it and is not read, in words.
    """

    def __init__(self, dataset: Any, path: Path, mask: Any = None) -> None:
        self._dataset, self._mask, self.path = dataset, mask, path
        self.driver: str = dataset.driver
        self.count, self.height, self.width = int(dataset.count), int(dataset.height), int(dataset.width)
        self.dtypes: tuple[str, ...] = tuple(map(str, dataset.dtypes))
        self.crs, self.transform = dataset.crs, dataset.transform
        self.nodatavals: tuple[float | None, ...] = tuple(dataset.nodatavals)
        self.scales: tuple[float, ...] = tuple(map(float, dataset.scales))
        self.offsets: tuple[float, ...] = tuple(map(float, dataset.offsets))
        self.descriptions: tuple[str | None, ...] = tuple(dataset.descriptions)
        self.colorinterp: tuple[ColorInterp, ...] = tuple(dataset.colorinterp)
        self._masked = tuple(_has_mask(flags) for flags in dataset.mask_flag_enums)
        self.unread: tuple[str, ...] = ()

    def tags(self, band: int = 0, ns: str | None = None) -> dict[str, str]:
        """Metadata of the file (0) or a band, of a domain.

        Raises:
            RequestError: it is no UTF-8 text.
        """
        with rasterio.Env(**_ALONE), gdal_errors(f"{self.path}: its tags cannot be read; write them anew as UTF-8"):
            return {str(k): str(v) for k, v in self._dataset.tags(band, ns=ns).items()}

    def points_only(self) -> bool:
        """Whether ground control points or rational polynomials alone say where it lies."""
        return self.crs is None and bool(self._dataset.gcps[0] or self.tags(ns="RPC"))

    def read(self, indices: Sequence[int], window: Window) -> Array:
        """Values [C, h, w] of 1-based bands.

        Raises:
            IntegrityError: the file is truncated or damaged.
            MissingCapability: so many do not fit into memory.
        """
        size = _bytes_of(self.dtypes[indices[0] - 1])
        check_memory(len(indices) * int(window.height) * int(window.width) * size, self.path)
        return self._window(self._dataset.read, indices, window)

    def missing(
        self, indices: Sequence[int], window: Window, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Where the file says that bands are missing, [C, h, w].

        Args:
            indices, values: 1-based bands and what :meth:`read` gave for them. alpha: 1-based alpha bands.
        """
        found = np.stack([equals(v, self.nodatavals[i - 1]) for v, i in zip(values, indices, strict=True)])
        masked = [k for k, i in enumerate(indices) if self._masked[i - 1]]
        if masked:
            found[masked] |= self._window(self._dataset.read_masks, [indices[k] for k in masked], window) == 0
        if self._mask is not None:
            own = [1] * len(indices) if self._mask.count == 1 else list(indices)
            found |= self._window(self._mask.read, own, window) == 0
        if alpha:
            found |= (self.read(list(alpha), window) == 0).any(axis=0)
        return found

    def close(self) -> None:
        self._dataset.close()
        if self._mask is not None:
            self._mask.close()

    def __enter__(self) -> Raster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _window(self, read: Any, indices: Sequence[int], window: Window) -> Array:
        what = (
            f"{self.path}: cannot be read at rows {window.row_off} to {window.row_off + window.height}; the file is "
            "truncated or damaged"
        )
        with rasterio.Env(**_ALONE), gdal_errors(what, IntegrityError):
            return np.asarray(read(list(indices), window=window))


def open_raster(path: Path, drivers: Sequence[str] = GEOTIFF) -> Raster:
    """Opens a raster of one of the formats that ``drivers`` (GDAL's names) says; to be closed, or used in ``with``.

    Raises:
        RequestError: no such file, no plain file, another format, not readable, or a header out of bounds: bands, edges, blocks,
            more pixels than a file of its size can hold, pixels without an area.
    """
    require_file(path)
    check_name(path.absolute())
    # As an absolute name, nothing in it is a prefix that means something to GDAL.
    name = str(path.absolute())
    if name.startswith(GDAL_VIRTUAL):
        raise RequestError(
            f"{path}: names that start with /vsi are GDAL's for archives and networks; give a plain file"
        )
    with rasterio.Env(**_ALONE):
        dataset = _dataset(path, name, drivers)
        mask = None
        try:
            _check_header(dataset, path, path.stat().st_size)
            mask = _mask_beside(dataset, path)
            return _raster(dataset, path, mask)
        except BaseException:
            dataset.close()
            if mask is not None:
                mask.close()
            raise


@contextlib.contextmanager
def raster_in_memory(content: bytes, drivers: Sequence[str]) -> Iterator[Raster]:
    """A raster file that is held as bytes; raises as :func:`open_raster`."""
    path = Path("an image in memory")
    check_geo_text(io.BytesIO(content), path)
    with rasterio.Env(**_ALONE), MemoryFile(content) as memory:
        with gdal_errors(f"{path}: {_not_readable(content[:64], drivers)}"), _quiet():
            dataset = memory.open(driver=list(drivers))
        with dataset:
            _check_header(dataset, path, len(content))
            yield _raster(dataset, path, None)


def resampled(values: Array, edge: int) -> Array:
    """Values (C, side, side) as (C, edge, edge) by cubic convolution of the very pixels given.

    Not by the file that they are from: GDAL would take its overviews, and a file can name others as its overviews.
    """
    from rasterio.enums import Resampling

    count, height, width = values.shape
    grid = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.Env(**_ALONE), _quiet(), MemoryFile() as memory:
        with memory.open(**grid) as written:
            written.write(values)
        with memory.open() as held:
            return np.asarray(held.read(out_shape=(count, edge, edge), resampling=Resampling.cubic))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _dataset(path: Path, name: str, drivers: Sequence[str]) -> Any:
    try:
        with path.open("rb") as file:
            first = file.read(64)
            file.seek(0)
            check_geo_text(file, path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    with gdal_errors(f"{path}: {_not_readable(first, drivers)}"), _quiet():
        return DatasetReader(name, driver=list(drivers))


def _raster(dataset: Any, path: Path, mask: Any) -> Raster:
    with gdal_errors(f"{path}: its header cannot be read; write the file anew (e.g. gdal_translate)"):
        raster = Raster(dataset, path, mask)
    found = list(raster.transform)[:6]
    if not all(map(math.isfinite, found)) or raster.transform.determinant == 0:
        shown = ", ".join(f"{v:g}" for v in found)
        raise RequestError(
            f"{path}: its pixels have no area on the ground (geotransform {shown}); write the right one into it, or none "
            "(gdal_edit.py -unsetgt)"
        )
    raster.unread = beside(path, placed=raster.crs is not None and not raster.transform.is_identity)
    return raster


def _not_readable(first: bytes, drivers: Sequence[str]) -> str:
    wanted, found = ", ".join(drivers).replace("GTiff", "GeoTIFF"), sniffed(first)
    if found is None or found in drivers:
        return f"not a raster that can be read as {wanted}"
    wanted = wanted.replace(", ", " or ")
    return f"not a raster of the kind that is read here: it is {found}, not {wanted}; convert it (e.g. gdal_translate -of COG)"


def _check_header(dataset: Any, path: Path, size: int) -> None:
    """Holds a header against the bounds, before anything is allocated by it.

    Raises:
        RequestError: it is out of them.
    """
    with gdal_errors(f"{path}: its header cannot be read"):
        count, height, width = dataset.count, dataset.height, dataset.width
        kinds, blocks = dataset.dtypes, dataset.block_shapes
        together = dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE", "BAND").upper() == "PIXEL"
    if not count or height < 1 or width < 1:
        raise RequestError(f"{path}: holds no raster bands")
    if count > MOST_BANDS or max(height, width) > MOST_EDGE:
        raise RequestError(
            f"{path}: {count} bands of {height}x{width} pixels; rsedge reads up to {MOST_BANDS} bands and {MOST_EDGE} pixels along "
            "an edge"
        )
    sizes = [_bytes_of(k) for k in kinds]
    block = max(h * w * s for (h, w), s in zip(blocks, sizes, strict=True)) * (count if together else 1)
    if block > MOST_BLOCK_BYTES:
        raise RequestError(
            f"{path}: is stored in blocks of {block / 2**20:.0f} MiB, rsedge takes up to {MOST_BLOCK_BYTES >> 20}; store it in "
            "tiles (e.g. gdal_translate -of COG)"
        )
    every = height * width * sum(sizes)
    if every > max(_RATIO_FROM, _MOST_RATIO * size):
        raise RequestError(
            f"{path}: a file of {size} bytes cannot hold {count} bands of {height}x{width} pixels; it is damaged or all but empty"
        )


def _bytes_of(dtype: str) -> int:
    """Of one value; ``complex_int16`` is GDAL's alone, and held as complex64."""
    return 8 if dtype == "complex_int16" else np.dtype(dtype).itemsize


def _mask_beside(dataset: Any, path: Path) -> Any:
    """The mask in a ``.msk`` file, where there is one and none inside.

    Raises:
        RequestError: it is no GeoTIFF of bytes of the same size.
    """
    place = path.with_name(f"{path.name}.msk")
    # access first: a name with .msk behind it may be longer than names can be.
    there = os.access(place, os.F_OK) and place.is_file()
    if not there or any(_has_mask(flags) for flags in dataset.mask_flag_enums):
        return None
    mask = _dataset(place, str(place.absolute()), GEOTIFF)
    try:
        _check_header(mask, place, place.stat().st_size)
        if (mask.height, mask.width) != (dataset.height, dataset.width) or mask.count not in (1, dataset.count):
            raise RequestError(f"{place}: a mask of {path.name} has its size and one band; remove it, or write it anew")
        if set(mask.dtypes) != {"uint8"}:
            raise RequestError(f"{place}: a mask is of bytes, not {mask.dtypes[0]}; remove it, or write it anew")
    except BaseException:
        mask.close()
        raise
    return mask


def alpha_bands(raster: Raster) -> list[int]:
    """1-based bands that the file calls alpha."""
    return [i for i, colour in enumerate(raster.colorinterp, start=1) if colour == ColorInterp.alpha]


def _has_mask(flags: Sequence[MaskFlags]) -> bool:
    """Whether a band's mask is stored as such; nodata values and alpha bands are looked at directly."""
    if MaskFlags.per_dataset in flags:
        return MaskFlags.alpha not in flags
    return not flags


def equals(values: Array, nodata: float | None) -> npt.NDArray[np.bool_]:
    """Where values are a nodata value, NaN included; float32 as exactly as it can be."""
    if nodata is None:
        return np.zeros(values.shape, dtype=bool)
    if values.dtype.kind != "f":
        return np.asarray(values == nodata)
    return np.isclose(values.astype(np.float64), nodata, rtol=_FLOAT_SLACK, atol=0, equal_nan=True)


def ground_sampling_distance(dataset: Raster) -> float | None:
    """Pixel size on the ground (m) at the scene's centre, geometric mean of both axes; None when it is unknown.

    Both axes are measured on the ellipsoid, so that degrees and stretched projections (Web Mercator) come out right.
    """
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    row, col = dataset.height / 2, dataset.width / 2
    points = [pixel_to_map(dataset.transform, *p) for p in ((col, row), (col + 1, row), (col, row + 1))]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if not (dataset.crs.is_geographic or dataset.crs.is_projected):
        return _plane_distance_m(dataset.crs, xs, ys)
    try:
        lon, lat = degrees(dataset.crs, xs, ys)
    except GDAL_ERRORS:
        return _plane_distance_m(dataset.crs, xs, ys)
    if not all(map(math.isfinite, (*lon, *lat))):
        return None
    across = _distance_m(lon[0], lat[0], lon[1], lat[1])
    along = _distance_m(lon[0], lat[0], lon[2], lat[2])
    return _length(math.sqrt(across * along))


def degrees(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Longitude and latitude of points of a CRS; infinite outside of where its projection holds. Raises :data:`GDAL_ERRORS`."""
    from rasterio.warp import transform as to_crs

    lon, lat = to_crs(crs, "EPSG:4326", xs, ys)
    return lon, lat


def _plane_distance_m(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Of a plane system without a place on Earth: by its unit of length (feet count as 0.3048 m)."""
    try:
        metres = float(crs.units_factor[1])
    except GDAL_ERRORS:
        return None
    if crs.is_geographic:
        return None
    return _length(
        metres * math.sqrt(math.dist((xs[0], ys[0]), (xs[1], ys[1])) * math.dist((xs[0], ys[0]), (xs[2], ys[2])))
    )


def _length(metres: float) -> float | None:
    """A length, None where rounding or overflow left none."""
    return metres if 0 < metres < math.inf else None


def pixel_to_map(transform: Any, col: float, row: float) -> tuple[float, float]:
    """Map coordinates of a pixel's upper left corner."""
    x = transform.a * col + transform.b * row + transform.c
    return x, transform.d * col + transform.e * row + transform.f


def _distance_m(lon_a: float, lat_a: float, lon_b: float, lat_b: float) -> float:
    """Short distance on the ellipsoid, by its radii of curvature in the meridian and across it."""
    lat = math.radians(0.5 * (lat_a + lat_b))
    w = 1 - _ECCENTRICITY_2 * math.sin(lat) ** 2
    turn = math.remainder(lon_b - lon_a, 360.0)
    north = math.radians(lat_b - lat_a) * _SEMI_MAJOR_M * (1 - _ECCENTRICITY_2) / w**1.5
    east = math.radians(turn) * _SEMI_MAJOR_M / math.sqrt(w) * math.cos(lat)
    return math.hypot(north, east)
