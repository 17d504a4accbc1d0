"""Objects that several tiles see, each once: a tile answers for those whose centres lie in its own part, and of two tiles' answers
for one object the more certain stays.

Tiles differ a little on where an object's centre lies. Close to the line between two own parts both may answer for it, and then one
answer is suppressed; or each may leave it to the other, and then the more certain of what they saw is taken back.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import FOUND, Floats, overlaps, places

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.intp]
TilePlace = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """Tiles along rows or columns of a scene.

    Attributes:
        starts: the first pixel of each. tile: their edge. length: of the scene (pixels).
    """

    starts: Sequence[int]
    tile: int
    length: int

    def owner(self, at: Floats) -> Numbers:
        """The tile in whose own part each place lies: to the middles of what a tile shares with the ones before and after it."""
        lines = [(a + self.tile + b) / 2 for a, b in itertools.pairwise(self.starts)]
        return np.searchsorted(np.array(lines), at, side="right")

    def beside(self, number: int) -> list[int]:
        """A tile and those that share pixels with it, or touch it: more than two where a scene is hardly larger than a tile."""
        return [n for n, start in enumerate(self.starts) if abs(start - self.starts[number]) <= self.tile]


class SeenBoxes:
    """Boxes of tiles, the most certain first.

    Attributes:
        table: (n, 6 or 7), in the scene's pixels. tile, owner: (n, 2) row and column of the tile that saw each, and of the one in
            whose own part its centre lies.
    """

    def __init__(self, table: Floats, tile: Numbers, owner: Numbers) -> None:
        order = np.argsort(-table[:, 4], kind="stable")
        self.table, self.tile, self.owner = table[order], tile[order], owner[order]
        self._placed = places(self.table, FOUND)
        self._members: dict[TilePlace, list[int]] = {}
        for number, (i, j) in enumerate(self.tile.tolist()):
            self._members.setdefault((i, j), []).append(number)

    @classmethod
    def of(cls, table: Floats, hidden: Bools, place: TilePlace, rows: Axis, cols: Axis) -> SeenBoxes:
        """A tile's boxes (in its own pixels) whose centres lie in the scene, on a pixel that is not ``hidden``."""
        start = rows.starts[place[0]], cols.starts[place[1]]
        x, y = (table[:, 0] + table[:, 2]) / 2, (table[:, 1] + table[:, 3]) / 2
        edge = len(hidden) - 1
        keep = ~hidden[y.astype(int).clip(0, edge), x.astype(int).clip(0, edge)]
        for at, axis in ((y + start[0], rows), (x + start[1], cols)):
            keep &= (at >= 0) & (at < axis.length)
        moved = table[keep]
        moved[:, :4] += np.array([start[1], start[0]] * 2, np.float32)
        owner = np.stack([rows.owner(y[keep] + start[0]), cols.owner(x[keep] + start[1])], 1)
        return cls(moved, np.tile(np.array(place, np.intp), (len(moved), 1)), owner)

    @classmethod
    def together(cls, parts: Sequence[SeenBoxes]) -> SeenBoxes:
        """Those of several tiles."""
        return cls(*(np.concatenate(found) for found in zip(*((p.table, p.tile, p.owner) for p in parts), strict=True)))

    def only(self, chosen: Bools) -> SeenBoxes:
        """Some of them."""
        return SeenBoxes(self.table[chosen], self.tile[chosen], self.owner[chosen])

    def tiles(self) -> list[tuple[TilePlace, Numbers]]:
        """Each tile with the numbers of its boxes."""
        return [(tile, np.array(members, np.intp)) for tile, members in self._members.items()]

    def within(self, tiles: Sequence[TilePlace]) -> Numbers:
        """Numbers of the boxes that these tiles saw."""
        return np.array(sorted(n for tile in tiles for n in self._members.get(tile, ())), np.intp)

    def same(self, numbers: Numbers, others: SeenBoxes, theirs: Numbers, overlap: float) -> Bools:
        """Which boxes are of one object with which of others, (n, m): of one class, and they overlap by more."""
        found = np.zeros((len(numbers), len(theirs)), bool)
        mine, other = self.table[numbers, 5], others.table[theirs, 5]
        for name in set(mine.tolist()):
            ours, near = np.flatnonzero(mine == name), np.flatnonzero(other == name)
            shares = overlaps(self._placed[numbers[ours]], others._placed[theirs[near]])
            found[ours[:, None], near] = shares > overlap
        return found


def merged(boxes: SeenBoxes, rows: Axis, cols: Axis, overlap: float) -> Floats:
    """Boxes (n, 6 or 7), the most certain first, each object once.

    Args:
        overlap: boxes of one class that overlap by more (intersection over union) are of one object.
    """
    beside = {tile: list(itertools.product(rows.beside(tile[0]), cols.beside(tile[1]))) for tile, _ in boxes.tiles()}
    own = (boxes.tile == boxes.owner).all(1)
    answers, others = boxes.only(own), boxes.only(~own)
    left = others.only(_left_to_each_other(others, answers, beside, overlap))
    parts = [part.table[_first_of_each(part, beside, overlap)] for part in (answers, left)]
    found = np.concatenate(parts)
    return found[np.argsort(-found[:, 4], kind="stable")]


Beside = dict[TilePlace, list[TilePlace]]


def _first_of_each(boxes: SeenBoxes, beside: Beside, overlap: float) -> Bools:
    """Boxes without those that a more certain one, of the same tile or one beside it, is of one object with."""
    alive = np.ones(len(boxes.table), bool)
    near = {tile: boxes.within(beside[tile]) for tile, _ in boxes.tiles()}
    for number, (i, j) in enumerate(boxes.tile.tolist()):
        if alive[number]:
            less = near[i, j][np.searchsorted(near[i, j], number, side="right") :]
            alive[less[boxes.same(np.array([number]), boxes, less, overlap)[0]]] = False
    return alive


def _left_to_each_other(others: SeenBoxes, answers: SeenBoxes, beside: Beside, overlap: float) -> Bools:
    """Boxes for which no tile answers, as the tile in whose own part they lie saw the object too, and left it to another.

    One that a tile cuts at its edge is none of them: the tile that sees the object whole answers for it.
    """
    free = dict[TilePlace, Numbers]()
    for tile, members in others.tiles():
        answered = others.same(members, answers, answers.within(beside[tile]), overlap).any(1)
        free[tile] = members[~answered]
    found = np.zeros(len(others.table), bool)
    for number in (n for members in free.values() for n in members):
        i, j = others.owner[number].tolist()
        theirs = free.get((i, j), np.zeros(0, np.intp))
        found[number] = others.same(np.array([number]), others, theirs, overlap).any()
    return found
