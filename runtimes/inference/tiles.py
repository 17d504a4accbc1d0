"""Scenes as overlapping tiles: where tiles start, what each weighs at a pixel, which columns are walked at a time, and reading.

A scene is mapped in panels, ranges of columns that are walked from top to bottom one after the other, each with every tile that
touches it. A panel is as wide as one row of the file's blocks may be for GDAL to hold it unpacked, so that each block is unpacked
once. The tiles on both sides of a panel's edge run twice, and a pixel's answer comes from the same tiles, added in the same order,
however wide panels are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.scenes.raster_file import Blocks
from rsedge.runtimes.session import Array

Progress = Callable[[int, int], None]
PANEL_BYTES = 64 << 20
"""Of one row of a file's blocks within a panel, unpacked; GDAL's cache (:mod:`rsedge.data.scenes.raster`) holds more than that."""
ALIGNED = 256
"""Panels begin at multiples of the edge of the blocks that are written."""
_CHUNK = 2048
"""Columns that are read at a time."""


class Grid(Protocol):
    """Where a raster lies: its size in pixels and its place."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def crs(self) -> Any: ...
    @property
    def transform(self) -> Any: ...
    @property
    def path(self) -> Path: ...


class Scene(Protocol):
    """What :func:`walk_tiles` needs of a scene; :class:`rsedge.data.scenes.geotiff.SceneReader` is one, and for models that
    compare dates :class:`rsedge.data.scenes.geotiff_dates.DatesReader`, whose bands stand date after date."""

    height: int
    width: int
    crs: Any
    transform: Any
    path: Path
    spec: InputSpec

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]: ...


class Screen(Protocol):
    """What keeps tiles from the model (:mod:`rsedge.runtimes.inference.screening`); a scene's reader may carry one."""

    @property
    def spared(self) -> int:
        """Tiles that it has kept from the model so far."""

    def hidden(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Which pixels of a window count as missing, [height, width]."""

    def spares(self, missing: npt.NDArray[np.bool_]) -> bool:
        """Whether a tile with these pixels missing is not run."""


def screen_of(reader: Scene) -> Screen | None:
    """The screen in front of a scene, where there is one."""
    found: Screen | None = getattr(reader, "screen", None)
    return found


def default_overlap(tile: int) -> int:
    """An eighth of the tile edge (pixels)."""
    return tile // 8


def first_pixel(reader: Scene) -> tuple[int, int]:
    """Row and column of a scene's first pixel on the grid on which tiles begin: one of its own, or the map's where its reader says
    so."""
    found: tuple[int, int] = getattr(reader, "first_pixel", (0, 0))
    return found


def starts_of(reader: Scene, tile: int, overlap: int) -> tuple[list[int], list[int]]:
    """:func:`tile_starts` of a scene's rows and columns, on the grid that :func:`first_pixel` tells."""
    row, col = first_pixel(reader)
    return tile_starts(reader.height, tile, overlap, row), tile_starts(reader.width, tile, overlap, col)


def tile_starts(length: int, tile: int, overlap: int, first: int = 0) -> list[int]:
    """First pixel of each tile along an axis: at the scene's edge, where a number of steps has gone by since the pixel that lies
    ``first`` before it, and so that the last one ends at the other edge. ``[0]`` for scenes smaller than a tile."""
    if length <= tile:
        return [0]
    step = tile - overlap
    return sorted({0, *range(-first % step, length - tile, step), length - tile})


def tile_weights(starts: Sequence[int], tile: int, overlap: int) -> npt.NDArray[np.float32]:
    """Weight of each tile's pixels along one axis, shape (tiles, tile); they sum to one at each pixel of the scene."""
    ramp = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    window = np.ones(tile)
    window[:overlap] *= ramp
    window[tile - overlap :] *= ramp[::-1]
    total = np.zeros(starts[-1] + tile)
    for start in starts:
        total[start : start + tile] += window
    return np.stack([window / total[s : s + tile] for s in starts]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Panel:
    """Columns ``first`` to ``stop`` of a scene, and ``tiles``, the numbers of the columns of tiles that touch them."""

    first: int
    stop: int
    tiles: range


def whole_width(reader: Scene, tile: int, overlap: int) -> list[Panel]:
    """All columns at a time."""
    return [Panel(0, reader.width, range(len(starts_of(reader, tile, overlap)[1])))]


def panels(reader: Scene, tile: int, overlap: int, most_bytes: int | None = None) -> list[Panel]:
    """Panels from left to right whose rows of blocks take at most ``most_bytes`` (:data:`PANEL_BYTES`); all columns as one where
    the scene does not lie in a file, or its blocks are as wide as itself, so that each part of one costs as much as the whole."""
    stored: Blocks | None = getattr(reader, "blocks", None)
    if stored is None or stored.width >= reader.width:
        return whole_width(reader, tile, overlap)
    step = stored.width if stored.width % ALIGNED == 0 else ALIGNED
    fits = int(PANEL_BYTES if most_bytes is None else most_bytes) // (stored.height * stored.pixel_bytes)
    edge = max(step, fits // step * step)
    _, starts = starts_of(reader, tile, overlap)
    found = []
    for first in range(0, reader.width, edge):
        stop = min(first + edge, reader.width)
        touching = [j for j, start in enumerate(starts) if start < stop and start + tile > first]
        found.append(Panel(first, stop, range(touching[0], touching[-1] + 1)))
    return found


def walk_tiles(
    reader: Scene, tile: int, row_starts: Sequence[int], col_starts: Sequence[int]
) -> Iterator[tuple[int, int, Array, npt.NDArray[np.bool_]]]:
    """Tiles from left to right and top to bottom: number of row and column, DN [C, tile, tile], missing [tile, tile].

    Those without a seen pixel are left out, and those that the reader's screen spares. Scenes smaller than a tile are continued by
    reflection. Each row is read once: what the next row of tiles shares with this one is kept.
    """
    screen = screen_of(reader)
    chunks = [_Chunk(reader, tile, part) for part in _chunks(reader, tile, col_starts)]
    for i, start in enumerate(row_starts):
        after = row_starts[i + 1] if i + 1 < len(row_starts) else reader.height
        j = 0
        for chunk in chunks:
            chunk.move(start, after)
            for col in chunk.cols:
                hidden = chunk.missing(col)
                wanted = not hidden.all()
                if wanted and screen is not None:
                    inside = min(tile, reader.height - start), min(tile, reader.width - col)
                    hidden |= _padded(screen.hidden(start, col, *inside), tile)
                    wanted = not screen.spares(hidden)
                if wanted:
                    yield i, j, chunk.dn(col), hidden
                j += 1
            chunk.leave()


def _chunks(reader: Scene, tile: int, col_starts: Sequence[int]) -> Iterator[Sequence[int]]:
    """Columns of tiles that are read together: all, where the file's blocks are as wide as the scene."""
    stored: Blocks | None = getattr(reader, "blocks", None)
    if stored is not None and stored.width >= reader.width:
        yield col_starts
        return
    first = 0
    for j in range(1, len(col_starts) + 1):
        if j == len(col_starts) or col_starts[j] + tile - col_starts[first] > max(_CHUNK, tile):
            yield col_starts[first:j]
            first = j


class _Chunk:
    """Neighbouring columns of tiles, read from top to bottom."""

    def __init__(self, reader: Scene, tile: int, cols: Sequence[int]) -> None:
        self._reader, self._tile, self.cols = reader, tile, cols
        self._width = min(cols[-1] + tile, reader.width) - cols[0]
        self._end: int | None = None
        self._parts: list[tuple[Array, npt.NDArray[np.bool_]]] = []
        self._kept: tuple[Array, npt.NDArray[np.bool_]] | None = None

    def move(self, start: int, after: int) -> None:
        """Goes to the tiles that begin in the row ``start``; rows from ``after`` on are kept for the next move."""
        stop, new = min(start + self._tile, self._reader.height), start if self._end is None else self._end
        self._parts = [] if self._kept is None else [self._kept]
        self._parts.append(self._reader.read(new, self.cols[0], stop - new, self._width))
        self._end, drop = stop, after - start
        kept = []
        for dn, missing in self._parts:
            kept.append((dn[:, drop:], missing[drop:]))
            drop = max(drop - len(missing), 0)
        self._kept = np.concatenate([dn for dn, _ in kept], axis=1), np.concatenate([m for _, m in kept])

    def leave(self) -> None:
        """Lets go of all but what the next move needs."""
        self._parts = []

    def missing(self, col: int) -> npt.NDArray[np.bool_]:
        """What is missing [tile, tile] of the tile that begins there."""
        here = self._here(col)
        return _padded(np.concatenate([part[:, here] for _, part in self._parts]), self._tile)

    def dn(self, col: int) -> Array:
        """Its DN [C, tile, tile]."""
        here = self._here(col)
        return _padded(np.concatenate([dn[:, :, here] for dn, _ in self._parts], axis=1), self._tile)

    def _here(self, col: int) -> slice:
        return slice(col - self.cols[0], col - self.cols[0] + self._tile)


def _padded(values: Array, tile: int) -> Array:
    """What is smaller than a tile along its last two axes, continued by reflection; what is added is dropped on writing."""
    bottom, right = tile - values.shape[-2], tile - values.shape[-1]
    if not bottom and not right:
        return values
    return np.pad(values, (*[(0, 0)] * (values.ndim - 2), (0, bottom), (0, right)), mode="reflect")
