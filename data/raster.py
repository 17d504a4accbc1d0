"""Rasters through GDAL: opening, windows, where pixels are missing, and what a pixel measures on the ground.

Missing is what a file declares missing in any of its ways, all of which count: nodata values of the bands, a mask of the whole file
(inside it or a ``.msk`` beside it), and an alpha band, wherever it stands. GDAL's own masks heed one of them only.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from rsedge.data.errors import IntegrityError, RequestError

Array = npt.NDArray[Any]

_CACHE_BYTES = 128 << 20
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


def open_raster(path: Path) -> Any:
    """A rasterio dataset.

    Raises:
        RequestError: no such file, or not a raster.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioIOError as error:
        raise RequestError(f"{path}: not a raster that GDAL can read ({error})") from error
    if not dataset.count or dataset.height < 1 or dataset.width < 1:
        raise RequestError(f"{path}: holds no raster bands")
    return dataset


def read_window(dataset: Any, path: Path, indices: list[int], window: Window, masks: bool = False) -> Array:
    """Values (or masks) [C, h, w] of a window.

    Raises:
        IntegrityError: the file is truncated or damaged.
    """
    try:
        read = dataset.read_masks if masks else dataset.read
        return np.asarray(read(indices, window=window))
    except RasterioIOError as error:
        raise IntegrityError(
            f"{path}: cannot be read at rows {window.row_off} to {window.row_off + window.height}; the file is "
            f"truncated or damaged ({error})"
        ) from error


def declared_missing(
    dataset: Any, path: Path, indices: list[int], window: Window, values: Array, alpha: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Where the file says that bands are missing, [C, h, w].

    Args:
        indices, values: 1-based bands and what :func:`read_window` gave for them. alpha: 1-based alpha bands.
    """
    missing = np.stack(
        [equals(v, dataset.nodatavals[i - 1]) for v, i in zip(values, indices, strict=True)],
    )
    masked = [k for k, i in enumerate(indices) if _has_mask(dataset.mask_flag_enums[i - 1])]
    if masked:
        missing[masked] |= read_window(dataset, path, [indices[k] for k in masked], window, masks=True) == 0
    if alpha:
        missing |= (read_window(dataset, path, list(alpha), window) == 0).any(axis=0)
    return missing


def alpha_bands(dataset: Any) -> list[int]:
    """1-based bands that the file calls alpha."""
    return [i for i, colour in enumerate(dataset.colorinterp, start=1) if colour == ColorInterp.alpha]


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


def ground_sampling_distance(dataset: Any) -> float | None:
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
        from rasterio.warp import transform as to_crs

        lon, lat = to_crs(dataset.crs, "EPSG:4326", xs, ys)
    except (CRSError, RasterioError):
        return _plane_distance_m(dataset.crs, xs, ys)
    if not all(map(math.isfinite, (*lon, *lat))):
        return None
    across = _distance_m(lon[0], lat[0], lon[1], lat[1])
    along = _distance_m(lon[0], lat[0], lon[2], lat[2])
    return math.sqrt(across * along)


def _plane_distance_m(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Of a plane system without a place on Earth: by its unit of length (feet count as 0.3048 m)."""
    try:
        metres = float(crs.units_factor[1])
    except (CRSError, RasterioError):
        return None
    if crs.is_geographic:
        return None
    return metres * math.sqrt(math.dist((xs[0], ys[0]), (xs[1], ys[1])) * math.dist((xs[0], ys[0]), (xs[2], ys[2])))


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
