"""What tiling does to a class map: whether it shows where tiles meet, and whether a window's answer depends on its extent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.scene import predict_rows
from rsedge.runtimes.inference.tiles import Scene, default_overlap, tile_starts
from rsedge.runtimes.session import Array, Session

MOST_TILES = 6
"""Of a scene's edge that is looked at."""
LEAST_TILES = 2.5
"""Of its shorter edge: below, hardly a pixel lies between seams."""
LEAST_SEEN = 4
"""Tiles' worth of pixels of the part that have data: more than the window loses at its edges."""
Bytes = npt.NDArray[np.uint8]


class Seams(BaseModel):
    """Shares of the pixels that a map says something of; 0 where there are none.

    Attributes:
        at, elsewhere: neighbouring pixels of unlike class, across the lines where tiles begin or end, and across all others.
        extent: pixels of a window that get another class when the window is mapped alone, so that tiles begin elsewhere.
        inside: of those, the ones at least a tile away from where the window was cut.
        pixels: of the part that was mapped, with a class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float
    elsewhere: float
    extent: float
    inside: float
    pixels: int

    @property
    def over(self) -> float | None:
        """How much more often classes change at seams than elsewhere; None where they change nowhere else."""
        return self.at / self.elsewhere if self.elsewhere else None


def part_of_scene(scene: Scene) -> Part | None:
    """The part of a scene that is looked at, at most :data:`MOST_TILES` tiles wide and high, where most pixels are seen; None where
    the scene is smaller than :data:`LEAST_TILES`, or less of it is seen than :data:`LEAST_SEEN`.

    Raises:
        IntegrityError: the scene is damaged.
    """
    tile = scene.spec.tile
    height, width = (min(n, MOST_TILES * tile) for n in (scene.height, scene.width))
    if min(height, width) < LEAST_TILES * tile:
        return None
    rows, cols = (
        sorted({*range(0, whole - part, tile), whole - part})
        for whole, part in ((scene.height, height), (scene.width, width))
    )
    counts = {(row, col): count for (row, col), count in _seen(scene, rows, cols, height, width)}
    row, col = max(counts, key=lambda at: (counts[at], -at[0], -at[1]))
    return Part(scene, row, col, height, width) if counts[row, col] >= LEAST_SEEN * tile**2 else None


def _seen(
    scene: Scene, rows: Sequence[int], cols: Sequence[int], height: int, width: int
) -> Iterator[tuple[tuple[int, int], int]]:
    """Seen pixels of each window of this size by its first row and column; a scene is not held whole."""
    row_edges, col_edges = (sorted({*at, *(one + size for one in at)}) for at, size in ((rows, height), (cols, width)))
    sums = np.zeros((len(row_edges), len(col_edges)), np.int64)  # of all pixels above and to the left of two edges
    for number, (row, stop) in enumerate(itertools.pairwise(row_edges), 1):
        seen = np.count_nonzero(~scene.read(row, 0, stop - row, scene.width)[1], axis=0)
        sums[number, 1:] = sums[number - 1, 1:] + np.add.reduceat(seen, col_edges[:-1]).cumsum()
    for row, col in itertools.product(rows, cols):
        top, bottom = (row_edges.index(edge) for edge in (row, row + height))
        left, right = (col_edges.index(edge) for edge in (col, col + width))
        yield (row, col), int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


def seams(session: Session, part: Part, classes: Sequence[str]) -> Seams:
    """Maps a part of a scene, and a window of it alone.

    Raises:
        RequestError, IntegrityError: as :func:`rsedge.runtimes.inference.scene.predict_rows`.
    """
    tile = session.input_spec.tile
    first = tile // 3  # no multiple of the step from tile to tile
    found = _mapped(session, part, classes)
    alone = _mapped(session, part.without(first), classes)
    at, elsewhere = (
        _share(np.concatenate(pairs))
        for pairs in zip(*(_unlike(m, _lines(m.shape[1], tile)) for m in (found, found.T)), strict=True)
    )
    window = found[first:, first:]
    other, seen = alone != window, window != NODATA_CLASS
    return Seams(
        at=at,
        elsewhere=elsewhere,
        extent=_share(other[seen]),
        inside=_share(other[tile:, tile:][seen[tile:, tile:]]),
        pixels=int(np.count_nonzero(found != NODATA_CLASS)),
    )


@dataclass
class Part:
    """A part of a scene, from a row and a column on (pixels), as a scene."""

    whole: Scene
    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        self.crs, self.transform, self.path, self.spec = None, None, self.whole.path, self.whole.spec

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        return self.whole.read(self.row + row, self.col + col, height, width)

    def without(self, pixels: int) -> Part:
        """The part without its first rows and columns."""
        return Part(self.whole, self.row + pixels, self.col + pixels, self.height - pixels, self.width - pixels)


def _mapped(session: Session, part: Part, classes: Sequence[str]) -> Bytes:
    return np.concatenate([rows.classes for rows in predict_rows(session, part, classes=classes)])


def _lines(length: int, tile: int) -> list[int]:
    """Numbers of the pixels before which a tile begins or behind which one ends, but for the edges."""
    starts = tile_starts(length, tile, default_overlap(tile))
    return sorted({line for start in starts for line in (start, start + tile)} - {0, length})


def _share(marked: npt.NDArray[np.bool_]) -> float:
    return float(marked.mean()) if marked.size else 0.0


def _unlike(found: Bytes, lines: Sequence[int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether neighbouring pixels of a row have unlike classes: those on both sides of the lines, and the others."""
    pairs = found[:, 1:] != found[:, :-1]
    seen = (found[:, 1:] != NODATA_CLASS) & (found[:, :-1] != NODATA_CLASS)
    at = np.zeros(pairs.shape[1], bool)
    at[np.array(lines) - 1] = True
    return pairs[:, at][seen[:, at]], pairs[:, ~at][seen[:, ~at]]
