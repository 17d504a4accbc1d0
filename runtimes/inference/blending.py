"""What becomes of the outputs of tiles that overlap: weighted sums, or only the class that has the largest one.

Where all tiles that cover a pixel name the same class, no weighted sum of theirs makes another the largest, so that a class map
needs sums only where tiles differ.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError
from rsedge.runtimes.session import Array

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Part:
    """What one tile gives for a cell: ``tile`` [K, h, w] at ``place`` (rows, columns) of the cell, ``weight`` [h, w] as a column
    and a row that are multiplied."""

    tile: Any
    place: tuple[slice, slice]
    weight: tuple[Floats, Floats]


class Blending(ABC):
    """What becomes of tiles' outputs on a grid that is ``finer`` times finer than the scene's, or ``coarser`` times coarser."""

    finer: int = 1
    coarser: int = 1
    bands: int
    dtype: str
    sums: bool = False
    """Whether cells are weighted sums, which depend on every tile that covers a pixel."""

    @abstractmethod
    def of_tile(self, outputs: Array) -> Any | None:
        """What is kept of a tile's outputs [K, T, T] until its cells are done; None where they are not finite."""

    @abstractmethod
    def cut(self, kept: Any, rows: slice, cols: slice) -> Any:
        """A part of what was kept, as a view."""

    @abstractmethod
    def copied(self, kept: Any) -> Any:
        """The same in memory of its own."""

    @abstractmethod
    def cell(self, parts: Sequence[Part], out: Array, columns: slice) -> None:
        """Writes ``columns`` of a cell's values to ``out`` [B, h, w]; the last part is the cell's own tile, which covers it."""

    def settle(self) -> None:  # noqa: B027 - most have nothing to settle
        """Finishes the cells of a row that were left unfinished."""


class Sums(Blending):
    """Weighted sums of what ``scores`` makes of a tile's outputs: ``bands`` values a pixel, float32."""

    dtype, sums = "float32", True

    def __init__(self, scores: Callable[[Array], Floats], bands: int, finer: int = 1, coarser: int = 1) -> None:
        self._scores, self.bands, self.finer, self.coarser = scores, bands, finer, coarser

    def of_tile(self, outputs: Array) -> Floats | None:
        found = self._scores(outputs)
        return found if np.isfinite(found).all() else None

    def cut(self, kept: Floats, rows: slice, cols: slice) -> Floats:
        return kept[:, rows, cols]

    def copied(self, kept: Floats) -> Floats:
        return kept.copy()

    def cell(self, parts: Sequence[Part], out: Array, columns: slice) -> None:
        total = np.zeros(parts[-1].tile.shape, np.float32)
        for part in parts:
            total[:, part.place[0], part.place[1]] += part.tile * (part.weight[0] * part.weight[1])
        out[:] = total[:, :, columns]


def reweighed(sums: Floats, parts: Sequence[Part], tiles: npt.NDArray[np.intp]) -> Floats:
    """Sums of a cell [B, h, w] as if the tiles that were run were all: where fewer of them than ``tiles`` [h, w] cover a pixel its
    sum is divided by their weights; elsewhere it stays bit for bit."""
    weight, count = np.zeros(tiles.shape, np.float32), np.zeros_like(tiles)
    for part in parts:
        weight[part.place] += part.weight[0] * part.weight[1]
        count[part.place] += 1
    return np.divide(sums, weight, out=sums, where=(count < tiles) & (weight > 0))


@dataclasses.dataclass(frozen=True)
class _Named:
    """A part of a tile: the class of the largest logit [h, w], and the logits [K, R, T] of the rows that are held, among which the
    part begins at ``row`` and ``col``."""

    best: npt.NDArray[np.uint8]
    logits: Floats
    row: int = 0
    col: int = 0


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What a tile says of some of a row's differing pixels: their numbers [n], logits [K, n], weights [n]."""

    pixels: npt.NDArray[np.intp]
    logits: Floats
    weight: Floats


class LargestClass(Blending):
    """Which class has the largest weighted sum of probabilities, uint8 [1, h, w]; the classes that :class:`Sums` of ``softmax``
    would give."""

    bands = 1
    dtype = "uint8"

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._names = names
        self._open: list[list[_Taken]] = []
        self._cells: list[tuple[Array, npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        self._pixels = 0

    def of_tile(self, outputs: Array) -> _Named | None:
        check_classes(outputs, self._names)
        best, highest = best_and_highest(outputs)
        return _Named(best, np.ascontiguousarray(outputs)) if np.isfinite(highest).all() else None

    def cut(self, kept: _Named, rows: slice, cols: slice) -> _Named:
        return _Named(kept.best[rows, cols], kept.logits, kept.row + rows.start, kept.col + cols.start)

    def copied(self, kept: _Named) -> _Named:
        rows = slice(kept.row, kept.row + len(kept.best))
        return _Named(kept.best.copy(), kept.logits[:, rows].copy(), 0, kept.col)

    def cell(self, parts: Sequence[Part], out: Array, columns: slice) -> None:
        own: _Named = parts[-1].tile
        out[0] = own.best[:, columns]
        if len(parts) > 1:
            differ = np.zeros(own.best.shape, bool)
            for part in parts[:-1]:
                differ[part.place] |= part.tile.best != own.best[part.place]
            self._differing(parts, out[0], columns, *np.divmod(np.flatnonzero(differ), own.best.shape[1]))

    def _differing(
        self, parts: Sequence[Part], out: Array, columns: slice, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]
    ) -> None:
        """Takes what has to be summed of a cell's pixels."""
        inner = (cols >= columns.start) & (cols < columns.stop)
        rows, cols = rows[inner], cols[inner]
        every = np.arange(len(rows))
        for n, part in enumerate(parts):
            (top, bottom), (left, right) = ((s.start, s.stop) for s in part.place)
            if part is parts[-1]:
                inside, r, c = every, rows, cols
            else:
                inside = np.flatnonzero((rows >= top) & (rows < bottom) & (cols >= left) & (cols < right))
                r, c = rows[inside] - top, cols[inside] - left
            if not len(inside):
                continue
            logits = part.tile.logits
            flat = (r + part.tile.row) * logits.shape[2] + (c + part.tile.col)
            while len(self._open) <= n:
                self._open.append([])
            weight = part.weight[0][r, 0] * part.weight[1][0, c]
            self._open[n].append(
                _Taken(self._pixels + inside, logits.reshape(len(logits), -1).take(flat, axis=1), weight)
            )
        self._cells.append((out, rows, cols - columns.start))
        self._pixels += len(rows)

    def settle(self) -> None:
        """Sums what tiles differ on, for all cells of a row together; each pixel's tiles are added in their order."""
        if self._pixels:
            self._open = [taken for taken in self._open if taken]
            total = np.zeros((len(self._open[0][0].logits), self._pixels), np.float32)
            for taken in self._open:
                share = softmax(np.concatenate([t.logits for t in taken], axis=1))
                total[:, np.concatenate([t.pixels for t in taken])] += share * np.concatenate([t.weight for t in taken])
            found, first = best_class(total), 0
            for out, rows, cols in self._cells:
                out[rows, cols] = found[first : first + len(rows)]
                first += len(rows)
        self._open, self._cells, self._pixels = [], [], 0


def probabilities_of(names: Sequence[str]) -> Sums:
    """The classes' probabilities, blended."""

    def scores(outputs: Array) -> Floats:
        check_classes(outputs, names)
        return softmax(outputs)

    return Sums(scores, len(names))


def check_classes(outputs: Array, names: Sequence[str] | None) -> None:
    """Raises:
    IntegrityError: outputs [K, T, T] of another number of classes than are named.
    """
    if names is not None and len(outputs) != len(names):
        raise IntegrityError(
            f"the model gives {len(outputs)} classes, its manifest names {len(names)} ({', '.join(names)})"
        )


def softmax(logits: Array) -> Floats:
    """Class probabilities over the first axis, float32; NaN where logits are infinite, which the self-test tells."""
    with np.errstate(invalid="ignore"):
        exponent = np.exp(logits - logits.max(axis=0, keepdims=True), dtype=np.float32)
    return np.asarray(exponent / exponent.sum(axis=0, keepdims=True), dtype=np.float32)


def best_class(scores: Floats) -> npt.NDArray[np.uint8]:
    """Index of the largest of scores [K, ...] per pixel, the first one of equals; K at most 255."""
    return best_and_highest(scores)[0]


def best_and_highest(scores: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """:func:`best_class`, and the largest score itself, NaN where one is.

    Plane by plane, which is faster than ``argmax`` over the first axis where K is small. The index of a later plane is larger
    than all before it, so that the largest index of those that rose above what came before is the answer.
    """
    if len(scores) == 1:
        return np.zeros(scores[0].shape, dtype=np.uint8), scores[0]
    index, highest = (scores[1] > scores[0]).view(np.uint8), np.maximum(scores[0], scores[1])
    for k in range(2, len(scores)):
        above = (scores[k] > highest).view(np.uint8)
        above *= np.uint8(k)
        np.maximum(index, above, out=index)
        np.maximum(highest, scores[k], out=highest)
    return index, highest
