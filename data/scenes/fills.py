"""Values that writers leave where nothing was measured, and that a file should declare as nodata."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import Array, equals
from rsedge.data.wording import Wording

FILLS = (
    -9999.0, -99999.0, -28672.0, -32768.0, -32767.0, float(np.finfo(np.float32).min), float(np.finfo(np.float64).min), 1e20,
    9.969209968386869e36,
)  # fmt: skip
_LEAST, _MOST = -9999.0, 9e19
_ABSURD = 1e12
_FEW, _SHARE = 10, 0.01
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


def absurd_warnings(path: Path, count: int, what: str = "pixels") -> list[str]:
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


class Alike:
    """Counts pixels whose bands all hold one value, which writers leave where nothing was measured, whatever it is."""

    def __init__(self, limits: tuple[float, float] = ANY) -> None:
        self._limits = limits
        self._seen = 0
        self._below, self._above = Counter[float](), Counter[float]()
        self._negative, self._within = Counter[float](), Counter[float]()

    def look(self, values: Array, physical: Array) -> None:
        """Adds values (C, N) of pixels that are there."""
        low, high = _in_all(physical < self._limits[0]), _in_all(physical > self._limits[1])
        self._seen += values.shape[1]
        alike = _in_all(values == values[0])
        # Of one band every pixel is alike, so that within its limits this tells nothing.
        within, negative = ~(low | high) & (len(values) > 1), _in_all(physical < 0)
        kinds = (
            (self._below, low),
            (self._above, high),
            (self._negative, within & negative),
            (self._within, within & ~negative),
        )
        for counter, where in kinds:
            found, counts = np.unique(values[0, alike & where], return_counts=True)
            counter.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def warnings(self, path: Path, wording: Wording) -> list[str]:
        """Warnings on values that may be fills.

        Raises:
            RequestError: one is below all that can be; says how to declare it.
        """
        for value, pixels in _most(self._below, _FEW):
            raise RequestError(
                f"{path}: {pixels} of the pixels looked at hold {value} in every band, less than can be, and the file does not "
                f"declare it as nodata; declare it with {wording.say('nodata', value)}, or in the file (gdal_edit.py -a_nodata "
                f"{value})"
            )
        many = max(_FEW, math.ceil(_SHARE * self._seen))
        found = [*_most(self._above, _FEW), *_most(self._negative, _FEW), *_most(self._within, many)]
        return [
            f"{path}: {pixels} of the pixels looked at hold {value} in every band; if those are no measurements, declare it with "
            f"{wording.say('nodata', value)}"
            for value, pixels in found
            if pixels < self._seen  # nothing would be left: then it is the units that are wrong
        ]


def _in_all(bands: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``bands.all(axis=0)``, band by band, which is several times as fast."""
    return functools.reduce(np.logical_and, bands)


def _most(counter: Counter[float], least: int) -> list[tuple[str, int]]:
    """The value that most of the counted pixels hold and how many do, where it stands out and they are no fewer than ``least``."""
    for value, pixels in counter.most_common(1):
        if pixels >= least and 2 * pixels > counter.total():
            return [(f"{value:.12g}", pixels)]
    return []
