"""What tiling does to a class map: whether it shows where tiles meet, and whether a window's answer depends on its extent."""

from __future__ import annotations

from collections.abc import Sequence
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
Bytes = npt.NDArray[np.uint8]


class Seams(BaseModel):
    """Shares of pixels.

    Attributes:
        at, elsewhere: neighbouring pixels of unlike class, across the lines where tiles begin or end, and across all others.
        extent: pixels of a window that get another class when the window is mapped alone, so that tiles begin elsewhere.
        inside: of those, the ones at least a tile away from where the window was cut.
        pixels: that were mapped.
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


def seams(session: Session, scene: Scene, classes: Sequence[str]) -> Seams | None:
    """Maps the upper left part of a scene, and a window of it alone; None where the scene is smaller than :data:`LEAST_TILES`.

    Raises:
        RequestError, IntegrityError: as :func:`rsedge.runtimes.inference.scene.predict_rows`.
    """
    tile = session.input_spec.tile
    height, width = (min(n, MOST_TILES * tile) for n in (scene.height, scene.width))
    if min(height, width) < LEAST_TILES * tile:
        return None
    first = tile // 3  # no multiple of the step from tile to tile
    found = _mapped(session, _Window(scene, 0, height, width), classes)
    alone = _mapped(session, _Window(scene, first, height - first, width - first), classes)
    at, elsewhere = (
        np.concatenate(part).mean()
        for part in zip(*(_unlike(m, _lines(m.shape[1], tile)) for m in (found, found.T)), strict=True)
    )
    other = alone != found[first:, first:]
    return Seams(
        at=float(at),
        elsewhere=float(elsewhere),
        extent=float(other.mean()),
        inside=float(other[tile:, tile:].mean()),
        pixels=found.size,
    )


@dataclass
class _Window:
    """A part of a scene, from a row and the same column on, as a scene."""

    whole: Scene
    first: int
    height: int
    width: int

    def __post_init__(self) -> None:
        self.crs, self.transform, self.path, self.spec = None, None, self.whole.path, self.whole.spec

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        return self.whole.read(self.first + row, self.first + col, height, width)


def _mapped(session: Session, window: _Window, classes: Sequence[str]) -> Bytes:
    return np.concatenate([rows.classes for rows in predict_rows(session, window, classes=classes)])


def _lines(length: int, tile: int) -> list[int]:
    """Numbers of the pixels before which a tile begins or behind which one ends, but for the edges."""
    starts = tile_starts(length, tile, default_overlap(tile))
    return sorted({line for start in starts for line in (start, start + tile)} - {0, length})


def _unlike(found: Bytes, lines: Sequence[int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether neighbouring pixels of a row have unlike classes: those on both sides of the lines, and the others."""
    pairs = found[:, 1:] != found[:, :-1]
    seen = (found[:, 1:] != NODATA_CLASS) & (found[:, :-1] != NODATA_CLASS)
    at = np.zeros(pairs.shape[1], bool)
    at[np.array(lines) - 1] = True
    return pairs[:, at][seen[:, at]], pairs[:, ~at][seen[:, ~at]]
