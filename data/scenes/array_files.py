"""Scenes as NumPy's arrays in ``.npz`` files. Need no GDAL.

An ``.npz`` has an array ``image`` or ``dn`` (bands, rows, columns), and may have ``bands`` (names), ``wavelengths_nm``, ``nodata``,
``scale`` and ``offset`` (one or one a band), ``crs`` (EPSG code or WKT), ``transform`` (a, b, c, d, e, f) and ``valid`` (rows,
columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.arrays import array_headers, read_arrays
from rsedge.data.errors import RequestError
from rsedge.data.scenes.crs_text import crs_text
from rsedge.data.scenes.raster_file import Array, PlainRaster, Transform

_IMAGES = ("image", "dn")
TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class NpzRaster(PlainRaster):
    """A scene of an ``.npz``, which is held in memory."""

    def __init__(self, path: Path) -> None:
        """Raises:
        RequestError: no such array, or a field of another shape or type. MissingCapability: more than half of the memory.
        """
        known = array_headers(path)
        name = next((one for one in _IMAGES if one in known), None)
        if name is None or len(known[name][0]) != 3:
            shapes = ", ".join(f"'{n}' {shape}" for n, (shape, _) in list(known.items())[:10])
            raise RequestError(
                f"{path}: a scene is an array 'image' or 'dn' (bands, rows, columns); it has {shapes or 'none'}"
            )
        wanted = [
            name,
            *(
                n
                for n in ("bands", "wavelengths_nm", "nodata", "scale", "offset", "crs", "transform", "valid")
                if n in known
            ),
        ]
        found = read_arrays(path, wanted)
        image = _plain_type(found[name], path)
        count = len(image)
        super().__init__(
            path, image.shape, str(image.dtype), names=[str(n) for n in found.get("bands", np.array([])).ravel()],
            wavelengths_nm=_numbers(found, "wavelengths_nm", path), nodata=_one(found, "nodata", path),
            scales=each(_numbers(found, "scale", path), count), offsets=each(_numbers(found, "offset", path), count),
            crs=_crs(found, path), transform=transform_of(_numbers(found, "transform", path), path),
        )  # fmt: skip
        self._image, self._valid = image, found.get("valid")
        if self._valid is not None and (self._valid.shape != image.shape[1:] or self._valid.dtype.kind not in "biuf"):
            raise RequestError(
                f"{path}: 'valid' is {self._valid.shape} of {self._valid.dtype}; bool of {image.shape[1:]} rows, columns is needed"
            )

    def values(self, indices: Sequence[int], window: Any) -> Array:
        rows, columns = slices(window)
        return np.asarray(self._image[[i - 1 for i in indices], rows, columns])

    def missing(self, indices: Sequence[int], window: Any, values: Array, alpha: Sequence[int]) -> Any:
        found = super().missing(indices, window, values, alpha)
        return found if self._valid is None else found | ~self._valid[slices(window)].astype(bool)


def open_npz(path: Path, *_: Any) -> NpzRaster:
    """Raises as :class:`NpzRaster`."""
    return NpzRaster(path)


def _plain_type(image: Array, path: Path) -> Array:
    if str(image.dtype.newbyteorder("=")) not in TYPES:
        raise RequestError(f"{path}: holds {image.dtype} values; rsedge reads {', '.join(TYPES)}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def slices(window: Any) -> tuple[slice, slice]:
    """Rows and columns of a window."""
    row, col, height, width = (int(v) for v in (window.row_off, window.col_off, window.height, window.width))
    return slice(row, row + height), slice(col, col + width)


def _numbers(found: Mapping[str, Array], name: str, path: Path) -> list[float]:
    values = found.get(name)
    if values is None:
        return []
    if values.dtype.kind not in "iuf":
        raise RequestError(f"{path}: '{name}' holds {values.dtype}; numbers are needed")
    return [float(v) for v in values.ravel()]


def _crs(found: Mapping[str, Array], path: Path) -> str | None:
    values = found.get("crs")
    if values is None:
        return None
    if values.size != 1:
        raise RequestError(f"{path}: 'crs' holds {values.size} texts; one is needed")
    value = values.reshape(()).item()
    return crs_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, f"{path}: 'crs'")


def _one(found: Mapping[str, Array], name: str, path: Path) -> float | None:
    values = _numbers(found, name, path)
    if len(values) > 1:
        raise RequestError(f"{path}: '{name}' holds {len(values)} numbers; one is needed")
    return values[0] if values else None


def each(values: Sequence[float], count: int) -> Sequence[float]:
    """One for all bands as one for each."""
    return list(values) * count if len(values) == 1 else values


def transform_of(values: Sequence[float], path: Path) -> Transform | None:
    """Six numbers, or nine with a last row of a matrix, as a transform; None of none.

    Raises:
        RequestError: another count, not finite, or pixels of no size.
    """
    if not values:
        return None
    if len(values) not in (6, 9) or not np.isfinite(values).all() or Transform(*values[:6]).determinant == 0:
        raise RequestError(
            f"{path}: its transform is {[*values][:9]}; six numbers a, b, c, d, e, f with pixels of some size are needed"
        )
    return Transform(*values[:6])
