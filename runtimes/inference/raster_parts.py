"""What writers of rasters share: rows that become whole blocks, class counts, palettes, probabilities as bytes. Needs no GDAL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.colours import class_colours
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.statistics import Statistics
from rsedge.runtimes.inference.style import LEVELS, PLAIN, Style
from rsedge.runtimes.inference.tiles import Grid
from rsedge.runtimes.session import Array

CLASS_BAND = "class"
_BLOCK, _OTHER = 256, 254


@dataclass(frozen=True)
class Layer:
    """A raster on a scene's grid, or one ``finer`` times finer, or of ``step`` x ``step`` pixels each.

    Attributes:
        bands: their names. dtype: ``uint8`` of one band ``class`` is a class map, of others probabilities; else float32.
        classes: names of the class numbers.
        counts: of each class number, filled by the time the raster is done: the map's statistics; of other bands they are counted.
    """

    bands: Sequence[str]
    dtype: str
    classes: Sequence[str]
    step: int = 1
    finer: int = 1
    style: Style = PLAIN
    counts: npt.NDArray[np.int64] | None = None

    @property
    def is_map(self) -> bool:
        return list(self.bands) == [CLASS_BAND]

    @property
    def nodata(self) -> float:
        return NODATA_CLASS if self.dtype == "uint8" else float("nan")

    @property
    def scale(self) -> float:
        """How many pixels of the scene one of its own is wide."""
        return self.step / self.finer

    def shape(self, reader: Grid) -> tuple[int, int, int]:
        """Bands, rows and columns on the grid of a scene."""
        return len(self.bands), self.finer * reader.height // self.step, self.finer * reader.width // self.step


class RowWriter:
    """Collects rows, of all columns or of one range of them after the other, so that blocks are written once and whole."""

    def __init__(self, put: Callable[[Array, int, int], None], statistics: Statistics | None = None) -> None:
        """Args:
        put: writes rows [B, h, w] at a row and a column.
        """
        self._put, self._rows, self._col, self._parts = put, 0, 0, list[Array]()
        self.statistics = statistics

    def add(self, rows: Array, col: int = 0) -> None:
        """Takes the next rows [B, h, w] from a column on; with another column than before they are its first ones."""
        if col != self._col:
            self.finish()
            self._rows, self._col = 0, col
        self._parts.append(rows)
        if sum(p.shape[1] for p in self._parts) >= _BLOCK:
            held = np.concatenate(self._parts, axis=1)
            whole = held.shape[1] // _BLOCK * _BLOCK
            self._write(held[:, :whole])
            self._parts = [held[:, whole:].copy()]

    def finish(self) -> None:
        if self._parts:
            self._write(np.concatenate(self._parts, axis=1))
        self._parts = []

    def _write(self, rows: Array) -> None:
        if rows.shape[1]:
            self._put(rows, self._rows, self._col)
            self._rows += rows.shape[1]
            if self.statistics is not None:
                self.statistics.add(rows)


def palette(classes: Sequence[str], colours: Sequence[str] = ()) -> dict[int, tuple[int, int, int, int]]:
    """Colours of class numbers, those given or else those of their names, and nothing for nodata."""
    shown = {
        i: (*(int(c[k : k + 2], 16) for k in (1, 3, 5)), 255)
        for i, c in enumerate((colours or class_colours(classes))[:NODATA_CLASS])
    }
    return {**shown, NODATA_CLASS: (0, 0, 0, 0)}  # type: ignore[dict-item]


def as_bytes(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities [K, h, w] (NaN = nodata) in steps of a 254th, 255 where they are missing."""
    missing = np.isnan(probabilities)
    steps = np.rint(np.where(missing, 0, probabilities) * LEVELS).clip(0, LEVELS).astype(np.uint8)
    steps[missing] = NODATA_CLASS
    return steps


def count_classes(classes: npt.NDArray[np.uint8], names: int, counts: npt.NDArray[np.int64]) -> None:
    """Adds how often each of ``names`` class numbers and nodata occurs to ``counts`` [256]; all other values go under 254, which no
    class has. Faster than ``bincount`` where there are few."""
    left = classes.size
    for value in (*range(names), NODATA_CLASS):
        found = int(np.count_nonzero(classes == value))
        counts[value] += found
        left -= found
    counts[_OTHER] += left
