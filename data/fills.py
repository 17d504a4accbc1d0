"""Values that writers leave where nothing was measured, and that a file should declare as nodata."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.raster import Array, equals
from rsedge.data.wording import Wording

FILLS = (
    -9999.0, -99999.0, -32768.0, -32767.0, float(np.finfo(np.float32).min), float(np.finfo(np.float64).min), 1e20,
    9.969209968386869e36,
)  # fmt: skip
_LEAST, _MOST = -9999.0, 9e19
_ABSURD = 1e12
ANY = (-math.inf, math.inf)
"""Limits of values of which nothing is known."""


def absurd(values: Array) -> npt.NDArray[np.bool_]:
    """Where floats are beyond what any sensor measures in any unit (and no fill value that writers are known to leave)."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, dtype=bool)
    found: npt.NDArray[np.bool_] = np.isfinite(values) & (np.abs(values) > _ABSURD)
    if found.any():
        for fill in FILLS:
            found &= ~equals(values, fill)
    return found


def told_absurd(path: Path, count: int, what: str = "pixels") -> list[str]:
    """A warning on so many pixels (or samples), none of none."""
    if not count:
        return []
    return [
        f"{path}: {count} {what} hold values beyond {_ABSURD:g} to either side, which nothing measures; they are taken as missing"
    ]


def check_nodata(nodata: float | None, dtype: str, path: Path, wording: Wording) -> None:
    """Raises:
    RequestError: ``nodata`` is no value that a file of integers of type ``dtype`` can hold, so it would mark nothing.
    """
    kind = np.dtype(dtype)
    if nodata is None or kind.kind not in "ui":
        return
    info = np.iinfo(kind)
    if not math.isfinite(nodata) or nodata != int(nodata) or not info.min <= nodata <= info.max:
        raise RequestError(
            f"{path}: {wording.say('nodata', f'{nodata:.12g}')} would mark no pixel: its values are {dtype}, whole numbers from "
            f"{info.min} to {info.max}; give the value that stands for missing pixels in this file, or leave it out"
        )


class Fills:
    """Counts pixels that hold a fill value though nothing declares it. ``known`` are values that mean missing anyway."""

    def __init__(self, known: Collection[float | None] = ()) -> None:
        self._known = known
        self._pixels: dict[float, int] = {}

    def look(self, values: Array, physical: Array, limits: tuple[float, float] = ANY) -> None:
        """Adds values (C, N) of pixels that are there; one that is plausible as a physical value is none."""
        odd = (values <= _LEAST) | (values > _MOST)
        if limits != ANY:
            odd &= (physical < limits[0]) | (physical > limits[1])
        if not odd.any():
            return
        for fill in FILLS:
            here = odd & equals(values, fill)
            if fill not in self._known and here.any():
                self._pixels[fill] = self._pixels.get(fill, 0) + int(here.any(axis=0).sum())

    def refuse(self, path: Path, wording: Wording) -> None:
        """Raises:
        RequestError: there were some; says how to declare them.
        """
        for value, pixels in self._pixels.items():
            number = f"{value:.12g}"
            raise RequestError(
                f"{path}: {pixels} of the pixels looked at hold {number}, which the file does not declare as nodata; declare it "
                f"with {wording.say('nodata', number)}, or in the file (gdal_edit.py -a_nodata {number})"
            )
