"""What a model gives for overlapping tiles, blended on the scene's grid, with memory that does not grow with the scene.

Each tile contributes with a weight that rises smoothly from its edge. The weights of all tiles that cover a pixel sum to one,
and factor into a row and a column part, so that they are known before the first tile runs.

The tiles' upper left corners cut the grid into cells. When a cell's own tile is there, all others that cover the cell came before
it, so it is done: what is held are the tiles just before it, and of the row of tiles above the rows that both share. A thread
reads and prepares tiles ahead; the model's own threads run them; what they give is blended in their order, so that neither the
number of threads nor the order in which tiles end changes a bit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.memory import check_memory
from rsedge.data.scenes.raster_file import bounded_cache
from rsedge.runtimes.inference.answers import Place, answers, no_number
from rsedge.runtimes.inference.blending import Blending, Floats, Part, reweighed
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.threads import ahead
from rsedge.runtimes.inference.tiles import (
    Panel,
    Progress,
    Scene,
    default_overlap,
    screen_of,
    starts_of,
    tile_weights,
    walk_tiles,
    whole_width,
)
from rsedge.runtimes.session import LOGITS, VALID, Array, Arrays, Session

Bools = npt.NDArray[np.bool_]
Panels = Callable[[Scene, int, int], Sequence[Panel]]
_AHEAD = 16
"""Tiles that are ready before the model wants them."""


@dataclasses.dataclass(frozen=True)
class Blended:
    """Finished rows of what tiles give, blended: ``values`` [B, h, w] and ``seen`` [h, w], False where the scene is nodata;
    ``start`` and ``col`` are the row and the column of the first pixel."""

    start: int
    col: int
    values: Array
    seen: Bools


def blend_rows(
    session: Session,
    reader: Scene,
    blending: Blending,
    overlap: int | None = None,
    progress: Progress | None = None,
    panels: Panels | None = None,
    run: SceneRun | None = None,
    done: int = 0,
) -> Generator[Blended, None, None]:
    """Runs a scene and yields what its tiles give, blended: panel after panel, each from top to bottom.

    Args:
        panels: which columns are walked at a time, of scene, tile and overlap; all together when not given.
        run: is told what becomes of tiles and where time goes; without one a tile that fails is an error.
        done: so many of what would be yielded are known already and left out.

    Raises:
        RequestError: overlap outside 0 .. half a tile; or the scene turns out to be unreadable, or is nodata as a whole.
        MissingCapability: a row of cells is wider than this machine's memory.
        IntegrityError: the model gives NaN or infinity for every tile; single ones are nodata, and ``run`` is told.
    """
    tile = session.input_spec.tile
    overlap = default_overlap(tile) if overlap is None else overlap
    if not 0 <= overlap <= tile // 2:
        raise RequestError(f"--overlap must lie between 0 and half a tile ({tile // 2}), not {overlap}")
    chosen = whole_width(reader, tile, overlap) if panels is None else panels(reader, tile, overlap)
    with bounded_cache():
        yield from _Mosaic(session, reader, blending, overlap, chosen, progress, run or SceneRun(strict=True)).rows(
            done
        )


@dataclasses.dataclass(frozen=True)
class _Tile:
    """What is held of a tile, from the row ``top`` and the column ``left`` of the output's grid on; ``kept`` is None of one without
    an answer, which hides whatever others show there."""

    top: int
    left: int
    kept: Any | None
    seen: Bools
    row_weights: Floats
    col_weights: Floats

    @property
    def bottom(self) -> int:
        return self.top + self.seen.shape[0]

    @property
    def right(self) -> int:
        return self.left + self.seen.shape[1]


class _Mosaic:
    """One pass over a scene. Tiles start on its grid; all else is on that of the outputs, ``finer`` times finer or ``coarser``
    times coarser: then tiles and scene are whole numbers of its places."""

    def __init__(
        self,
        session: Session,
        reader: Scene,
        blending: Blending,
        overlap: int,
        panels: Sequence[Panel],
        progress: Progress | None,
        run: SceneRun,
    ) -> None:
        self.session, self.reader, self.blending, self.progress, self.run = session, reader, blending, progress, run
        self.panels, tile = panels, session.input_spec.tile
        self.scene_tile, self.tile = tile, self._places(tile)
        self.row_starts, self.col_starts = starts_of(reader, tile, overlap)
        self.tops = [self._places(start) for start in (*self.row_starts, reader.height)]
        self.lefts = [self._places(start) for start in (*self.col_starts, reader.width)]
        self.row_weights = tile_weights(self.tops[:-1], self.tile, self._places(overlap))
        self.col_weights = tile_weights(self.lefts[:-1], self.tile, self._places(overlap))
        self.every = len(self.row_starts) * sum(len(panel.tiles) for panel in panels)
        self.above: list[_Tile] = []
        self.beside: list[_Tile] = []
        self.below: list[_Tile] = []
        self.strip: Blended | None = None

    def _places(self, pixels: int) -> int:
        """Of the outputs' grid in so many pixels of the scene."""
        return pixels * self.blending.finer // self.blending.coarser

    def rows(self, done: int = 0) -> Iterator[Blended]:
        """All rows of cells but the first ``done``, for which only those tiles run that reach into the others."""
        every = [(p, i) for p in range(len(self.panels)) for i in range(len(self.row_starts))]
        at = self._first_row(*every[done], done) if done < len(every) else done
        self.run.every = sum(len(self.panels[panel].tiles) for panel, _ in every[at:])
        with ahead(self._tiles(every[at:]), _AHEAD) as tiles:
            for place, outputs in answers(self.session, tiles, self.run):
                while every[at] != (place.panel, place.i):
                    strip = self._finished(*every[at])
                    if at >= done:
                        yield strip
                    at += 1
                with self.run.stage("blend"):
                    self._add(place, outputs)
                self._report(place)
        screen = screen_of(self.reader)
        if not done:
            self.run.check_any(self.reader.path, screened=screen is not None and screen.spared > 0)
        for number in range(at, len(every)):
            strip = self._finished(*every[number])
            if number >= done:
                yield strip
        if self.progress is not None:
            self.progress(self.every, self.every)

    def _first_row(self, panel: int, i: int, number: int) -> int:
        """Number of the first row of tiles that reaches into row ``i`` of a panel, which has ``number``."""
        return number - sum(top + self.tile > self.tops[i] for top in self.tops[:i])

    def _tiles(self, rows: Sequence[tuple[int, int]]) -> Iterator[tuple[Place, Array]]:
        """Tiles of these rows (panel, row of tiles) to be run, from the thread that reads."""
        for number, group in itertools.groupby(rows, key=lambda row: row[0]):
            panel, first = self.panels[number], next(group)[1]
            starts = [self.col_starts[j] for j in panel.tiles]
            walk = walk_tiles(self.reader, self.scene_tile, self.row_starts[first:], starts)
            for i, j, dn, missing in self.run.reads(walk, self.reader):
                row = first + i
                place = Place(number, row, panel.tiles[j], self.row_starts[row], starts[j], missing)
                yield place, dn.reshape(1, *self.session.input_spec.shape)

    def _report(self, place: Place) -> None:
        if self.progress is not None:
            before = sum(len(panel.tiles) for panel in self.panels[: place.panel]) * len(self.row_starts)
            tiles = self.panels[place.panel].tiles
            self.progress(before + place.i * len(tiles) + place.j - tiles.start + 1, self.every)

    def _add(self, place: Place, outputs: Arrays | None) -> None:
        """Finishes the cell of a tile, and keeps of the tile what cells beside and below it need."""
        tile = self._tile(place, outputs)
        after, last = self.tops[place.i + 1], place.i + 1 == len(self.row_starts)
        if not last and tile.bottom > after:
            self.below.append(self._from_row(tile, after, own=True))
        self.beside = [*(t for t in self.beside if t.right > tile.left), tile]
        rows, cols = (tile.top, after), (tile.left, self.lefts[place.j + 1])
        if self.strip is None:
            self.strip = self._blank(place.panel, place.i)
        self._finish(rows, cols, [*(t for t in self.above if t.left < cols[1] and t.right > cols[0]), *self.beside])

    def _tile(self, place: Place, outputs: Arrays | None) -> _Tile:
        i, j = place.i, place.j
        kept = None if outputs is None else self.blending.of_tile(outputs[LOGITS][0])
        if outputs is not None and kept is None:
            self.run.fail(place.row, place.col, no_number(self.reader, place))
        if outputs is None or kept is None:
            seen = np.zeros((self.tile, self.tile), bool)
        else:
            seen = self._on_grid(outputs[VALID][0] > place.missing)
        return _Tile(self.tops[i], self.lefts[j], kept, seen, self.row_weights[i][:, None], self.col_weights[j][None])

    def _on_grid(self, mask: Bools) -> Bools:
        finer, coarser = self.blending.finer, self.blending.coarser
        if coarser > 1:
            return np.asarray(mask.reshape(self.tile, coarser, self.tile, coarser).any((1, 3)))
        return mask if finer == 1 else mask.repeat(finer, 0).repeat(finer, 1)

    def _from_row(self, tile: _Tile, row: int, own: bool) -> _Tile:
        """The part of a tile from a row of the grid on, in memory of its own where asked."""
        rows = slice(row - tile.top, self.tile)
        kept = None if tile.kept is None else self.blending.cut(tile.kept, rows, slice(0, self.tile))
        if own and kept is not None:
            kept = self.blending.copied(kept)
        seen = tile.seen[rows].copy() if own else tile.seen[rows]
        return dataclasses.replace(tile, top=row, kept=kept, seen=seen, row_weights=tile.row_weights[rows])

    def _finish(self, rows: tuple[int, int], cols: tuple[int, int], tiles: Sequence[_Tile]) -> None:
        """Writes a cell's pixels into the strip; ``tiles`` are those that touch it, its own as the last.

        Whether a pixel is seen is the same in all tiles that cover it, so that the cell's own says it.
        """
        assert self.strip is not None
        own, strip = tiles[-1], self.strip
        # Columns of the panel's first and last tiles that belong to its neighbours are left out.
        left, right = (min(max(c - strip.col, 0), strip.seen.shape[1]) for c in cols)
        if own.kept is None or right <= left:
            return
        inner = slice(left + strip.col - cols[0], right + strip.col - cols[0])
        shape = (rows[1] - rows[0], cols[1] - cols[0])
        seen, parts = own.seen[: shape[0], : shape[1]], list[Part]()
        for tile in tiles:
            place = (
                slice(max(tile.top - rows[0], 0), min(tile.bottom - rows[0], shape[0])),
                slice(max(tile.left - cols[0], 0), min(tile.right - cols[0], shape[1])),
            )
            inside = (
                slice(place[0].start + rows[0] - tile.top, place[0].stop + rows[0] - tile.top),
                slice(place[1].start + cols[0] - tile.left, place[1].stop + cols[0] - tile.left),
            )
            if tile.kept is None:
                seen = seen.copy()
                seen[place] = False
                continue
            weight = (tile.row_weights[inside[0]], tile.col_weights[:, inside[1]])
            parts.append(Part(self.blending.cut(tile.kept, *inside), place, weight))
        out = strip.values[:, :, left:right]
        if self.blending.sums and screen_of(self.reader) is not None:
            found = np.empty((self.blending.bands, *shape), self.blending.dtype)
            self.blending.cell(parts, found, slice(0, shape[1]))
            out[:] = reweighed(found, parts, self._covering(rows, cols))[:, :, inner]
        else:
            self.blending.cell(parts, out, inner)
        strip.seen[:, left:right] = seen[:, inner]

    def _covering(self, rows: tuple[int, int], cols: tuple[int, int]) -> npt.NDArray[np.intp]:
        """How many of the scene's tiles cover each pixel of a cell."""
        by_axis = []
        for starts, (first, stop) in ((self.tops[:-1], rows), (self.lefts[:-1], cols)):
            at = np.arange(first, stop)
            by_axis.append(np.searchsorted(starts, at, "right") - np.searchsorted(starts, at - self.tile, "right"))
        return np.outer(*by_axis)

    def _blank(self, panel: int, i: int) -> Blended:
        """A row of cells in which nothing is seen yet."""
        columns = self.panels[panel]
        first = self._places(columns.first)
        height, width = self.tops[i + 1] - self.tops[i], self._places(columns.stop) - first
        shape = (self.blending.bands, height, width)
        check_memory(shape[0] * height * width * np.dtype(self.blending.dtype).itemsize, self.reader.path)
        return Blended(self.tops[i], first, np.zeros(shape, self.blending.dtype), np.zeros(shape[1:], bool))

    def _finished(self, panel: int, i: int) -> Blended:
        """The row of cells as it is; what the next one needs moves up."""
        strip = self._blank(panel, i) if self.strip is None else self.strip
        with self.run.stage("blend"):
            self.blending.settle()
        after = self.tops[i + 1]
        held = [self._from_row(tile, after, own=False) for tile in self.above if tile.bottom > after]
        self.above = [] if i + 1 == len(self.row_starts) else [*held, *self.below]
        self.beside, self.below, self.strip = [], [], None
        return strip
