"""Arrays instead of files: digital numbers in the contract's bands and units, as scenes and as samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff_dates import one_date
from rsedge.data.scenes.raster_file import Transform

Array = npt.NDArray[Any]


def batch_of(values: Array, spec: InputSpec, any_size: bool) -> tuple[Array, bool]:
    """Digital numbers of one input or several, (N, *shape), and whether it was one.

    Whole numbers are digital numbers, floats for a contract of whole numbers physical values (NaN where missing), as in files.

    Raises:
        RequestError: another shape or type; says what is needed.
    """
    dn = _dn(np.asarray(values), spec, any_size)
    one = dn.ndim == len(spec.shape)
    return (dn[None] if one else dn), one


def _dn(values: Array, spec: InputSpec, any_size: bool) -> Array:
    """Digital numbers of the contract's type; a pixel that one band misses is missing in all, as in files."""
    axes = len(spec.shape)
    sizes = ["H" if n == "H" else "W" if n == "W" else str(s) for n, s in zip(spec.layout, spec.shape, strict=True)]
    wanted = f"({', '.join(sizes if any_size else map(str, spec.shape))}) or several of these ({spec.layout}, bands "
    wanted += f"{', '.join(spec.band_names)}; {spec.dtype} digital numbers, or physical values as floats)"
    shape = values.shape[-axes:]
    fits = values.ndim in (axes, axes + 1) and all(
        (any_size and name in "HW" and got) or got == size
        for name, got, size in zip(spec.layout, shape, spec.shape, strict=True)
    )
    if not fits or not values.size or values.dtype.kind not in "iuf":
        raise RequestError(f"predict: got {values.dtype} {values.shape}; needed is {wanted}")
    axis = values.ndim - axes + spec.layout.index("C")
    if values.dtype.kind == "f" and np.dtype(spec.dtype).kind != "f":
        gone = ~np.isfinite(values)
        dn = spec.to_dn(np.where(gone, 0, values))
    else:
        info = np.iinfo(spec.dtype) if np.dtype(spec.dtype).kind in "iu" else None
        if info is not None and (values.min() < info.min or values.max() > info.max):
            raise RequestError(
                f"predict: {values.min()} to {values.max()} are no {spec.dtype} digital numbers; needed is {wanted}"
            )
        dn = values.astype(spec.dtype)
        gone = ~np.isfinite(values)
        for i, band in enumerate(spec.bands):
            if band.nodata is not None:
                here = (slice(None),) * axis + (i,)
                gone[here] |= values[here] == band.nodata
    if spec.is_image:
        gone = np.broadcast_to(gone.any(axis, keepdims=True), gone.shape)
    missing = spec.missing_dn().reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.ascontiguousarray(np.where(gone, missing, dn))


class ArrayScene:
    """An image in memory as :class:`rsedge.runtimes.inference.tiles.Scene`, dates one after the other; it lies nowhere."""

    def __init__(self, dn: Array, spec: InputSpec) -> None:
        self.spec, self.path, self.crs, self.transform = spec, Path("array"), None, Transform()
        self.height, self.width = dn.shape[-2:]
        self._dn, self._date = dn.reshape(-1, self.height, self.width), one_date(spec)

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        dn = self._dn[:, row : row + height, col : col + width].copy()
        dates = dn.reshape(-1, self.spec.channels, *dn.shape[1:])
        return dn, np.logical_or.reduce([~self._date.valid(date) for date in dates])
