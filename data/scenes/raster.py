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
from rasterio._err import CPLE_AppDefinedError, CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from rsedge.data.errors import IntegrityError, RequestError, RsedgeError
from rsedge.data.files import GDAL_VIRTUAL, check_name, require_file
from rsedge.data.memory import check_memory
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster_file import GEOGRAPHIC, ground_distance_m, placed, positive
from rsedge.data.scenes.raster_file import MOST_BANDS as MOST_BANDS
from rsedge.data.scenes.raster_file import MOST_BLOCK_BYTES as MOST_BLOCK_BYTES
from rsedge.data.scenes.raster_file import MOST_EDGE as MOST_EDGE
from rsedge.data.scenes.raster_file import Array as Array
from rsedge.data.scenes.raster_file import Blocks as Blocks
from rsedge.data.scenes.raster_file import Transform as Transform
from rsedge.data.scenes.raster_file import bounded_cache as bounded_cache
from rsedge.data.scenes.raster_file import equals as equals
from rsedge.data.scenes.raster_file import pixel_to_map as pixel_to_map
from rsedge.data.scenes.raster_kinds import GEOTIFF, beside, sniffed
from rsedge.data.scenes.tiff_text import check_geo_text

CLASSES_TAG = "rsedge_classes"
"""Of what rsedge made of a scene: names of its classes or bands, as JSON."""
_MOST_RATIO, _RATIO_FROM = 50_000, 256 << 20

# Neither the network, nor what lies beside a file, nor more bands than we take.
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_MAX_BAND_COUNT": MOST_BANDS,
}
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError, UnicodeError)
"""What rasterio raises of a file's content; ``CPLE_BaseError`` (GDAL's own) passes through some of its functions as it is."""


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
            None and the identity where it does not say (:func:`rsedge.data.scenes.raster_file.placed`). unread: what is said of it,
            by itself or beside it, and not read, in words.
    """

    def __init__(self, dataset: Any, path: Path, mask: Any = None) -> None:
        self._dataset, self._mask = dataset, mask
        self.path = self.product = path
        self.driver: str = dataset.driver
        self.count, self.height, self.width = int(dataset.count), int(dataset.height), int(dataset.width)
        self.dtypes: tuple[str, ...] = tuple(map(str, dataset.dtypes))
        self.transform = Transform(*list(dataset.transform)[:6])
        self.crs, self.unread = placed(dataset.crs, self.transform)
        self.nodatavals: tuple[float | None, ...] = tuple(dataset.nodatavals)
        self.scales: tuple[float, ...] = tuple(map(float, dataset.scales))
        self.offsets: tuple[float, ...] = tuple(map(float, dataset.offsets))
        self.descriptions: tuple[str | None, ...] = tuple(dataset.descriptions)
        self.colorinterp: tuple[str, ...] = tuple(colour.name for colour in dataset.colorinterp)
        self._blocks = tuple((int(h), int(w)) for h, w in dataset.block_shapes)
        self._interleaved = _interleaved(dataset)
        self._masked = tuple(_has_mask(flags) for flags in dataset.mask_flag_enums)

    def tags(self, band: int = 0, ns: str | None = None) -> dict[str, str]:
        """Metadata of the file (0) or a band, of a domain.

        Raises:
            RequestError: it is no UTF-8 text.
        """
        with rasterio.Env(**_ALONE), gdal_errors(f"{self.path}: its tags cannot be read; write them anew as UTF-8"):
            return {str(k): str(v) for k, v in self._dataset.tags(band, ns=ns).items()}

    def blocks(self, indices: Sequence[int]) -> Blocks:
        """Of 1-based bands; where a block holds all bands, all are unpacked for one."""
        wanted = range(1, self.count + 1) if self._interleaved else indices
        height, width = self._blocks[indices[0] - 1]
        return Blocks(height, width, sum(_bytes_of(self.dtypes[i - 1]) for i in wanted))

    def gsd_m(self) -> float | None:
        """As :func:`ground_sampling_distance`."""
        return ground_sampling_distance(self)

    def points(self) -> Points:
        """Ground control points, where it has no transform, and rational polynomials.

        Raises:
            RequestError: they cannot be read.
        """
        with rasterio.Env(**_ALONE), gdal_errors(f"{self.path}: its control points or RPC cannot be read; remove them"):
            gcps, crs = self._dataset.gcps if self.transform.is_identity else ((), None)
            return Points(tuple(gcps), crs, self._dataset.rpcs)

    def read(self, indices: Sequence[int], window: Any) -> Array:
        """Values [C, h, w] of 1-based bands.

        Raises:
            IntegrityError: the file is truncated or damaged.
            MissingCapability: so many do not fit into memory.
        """
        size = _bytes_of(self.dtypes[indices[0] - 1])
        check_memory(len(indices) * int(window.height) * int(window.width) * size, self.path)
        return self._window(self._dataset.read, indices, window)

    def missing(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
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

    def missing_anywhere(
        self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]
    ) -> npt.NDArray[np.bool_]:
        """Where any of the bands is missing, [h, w]; of the values alone where the file has neither mask nor alpha."""
        if alpha or self._mask is not None or any(self._masked[i - 1] for i in indices):
            return np.asarray(self.missing(indices, window, values, alpha).any(axis=0))
        found = np.zeros(values.shape[1:], dtype=bool)
        for band, i in zip(values, indices, strict=True):
            if self.nodatavals[i - 1] is not None:
                found |= equals(band, self.nodatavals[i - 1])
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

    def _window(self, read: Any, indices: Sequence[int], window: Any) -> Array:
        what = (
            f"{self.path}: cannot be read at rows {window.row_off} to {window.row_off + window.height}; the file is "
            "truncated or damaged"
        )
        part = Window(window.col_off, window.row_off, window.width, window.height)
        with rasterio.Env(**_ALONE), gdal_errors(what, IntegrityError):
            return np.asarray(read(list(indices), window=part))


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


def check_known(crs: str, path: Path) -> CRS:
    """A text (``EPSG:n`` or WKT) as rasterio's system.

    Raises:
        RequestError: GDAL does not know it.
    """
    with gdal_errors(f"{path}: its coordinate reference system {crs[:60]} is none; mend it, or leave it out"):
        return CRS.from_user_input(crs)


def open_scene(path: Path, *_: Any) -> Raster:
    """A GeoTIFF, whatever contract it is read for; raises as :func:`open_raster`."""
    return open_raster(path)


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
    found = raster.transform
    if not all(map(math.isfinite, found)) or raster.transform.determinant == 0:
        shown = ", ".join(f"{v:g}" for v in found)
        raise RequestError(
            f"{path}: its pixels have no area on the ground (geotransform {shown}); write the right one into it, or none "
            "(gdal_edit.py -unsetgt)"
        )
    own = () if raster.unread and raster.points() else raster.unread
    raster.unread = (*own, *beside(path, placed=raster.crs is not None))
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
        together = _interleaved(dataset)
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


def _interleaved(dataset: Any) -> bool:
    """Whether a block holds all bands."""
    return str(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE", "BAND")).upper() == "PIXEL"


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


def _has_mask(flags: Sequence[MaskFlags]) -> bool:
    """Whether a band's mask is stored as such; nodata values and alpha bands are looked at directly."""
    if MaskFlags.per_dataset in flags:
        return MaskFlags.alpha not in flags
    return not flags


def ground_sampling_distance(dataset: Raster) -> float | None:
    """Pixel size on the ground (m) at the scene's centre, geometric mean of both axes; None when it is unknown.

    Both axes are measured on the ellipsoid, so that degrees and stretched projections (Web Mercator) come out right.
    """
    if dataset.crs is None:
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
    across = ground_distance_m(lon[0], lat[0], lon[1], lat[1])
    along = ground_distance_m(lon[0], lat[0], lon[2], lat[2])
    return positive(math.sqrt(across * along))


def between(source: Any, target: Any, xs: Sequence[float], ys: Sequence[float]) -> tuple[Array, Array]:
    """Points of one CRS in another, x and y each; NaN where a projection holds no such point.

    Raises:
        GDAL_ERRORS: a system is none, or nothing leads from one to the other.
    """
    systems = CRS.from_user_input(source), CRS.from_user_input(target)
    with rasterio.Env():
        return _between(*systems, np.asarray(xs, np.float64), np.asarray(ys, np.float64))


def _between(source: CRS, target: CRS, xs: Array, ys: Array) -> tuple[Array, Array]:
    """GDAL refuses all points for one, so that they are halved until the ones that it refuses stand alone."""
    try:
        return _brought(source, target, xs, ys)
    except CPLE_AppDefinedError:
        if len(xs) == 1:
            return np.full(1, math.nan), np.full(1, math.nan)
    middle = len(xs) // 2
    parts = (_between(source, target, xs[half], ys[half]) for half in (slice(middle), slice(middle, None)))
    x, y = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(y)


def _brought(source: Any, target: Any, xs: Any, ys: Any) -> tuple[Array, Array]:
    from rasterio.warp import transform

    x, y = transform(source, target, xs, ys)
    return np.asarray(x), np.asarray(y)


def degrees(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> tuple[Array, Array]:
    """Longitude and latitude of points of a CRS.

    Raises:
        GDAL_ERRORS: the system is none, or its projection holds one of them nowhere.
    """
    return _brought(crs, GEOGRAPHIC, xs, ys)


def _plane_distance_m(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Of a plane system without a place on Earth: by its unit of length (feet count as 0.3048 m)."""
    try:
        metres = float(crs.units_factor[1])
    except GDAL_ERRORS:
        return None
    if crs.is_geographic:
        return None
    return positive(
        metres * math.sqrt(math.dist((xs[0], ys[0]), (xs[1], ys[1])) * math.dist((xs[0], ys[0]), (xs[2], ys[2])))
    )
