"""Training views of samples with boxes: what is done to the image is done to its boxes too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import CORNERS, TRUTH, Floats, places, turned, within
from rsedge.data.samples.views import Rng, SampleViews
from rsedge.data.turns import TURNS, turned_image

ZOOM = (0.75, 1.35)


@dataclass
class BoxViews(SampleViews):
    """``views(i)`` gives view i, ``views.boxes(i)`` its boxes (M, 5), or (M, 6) where they are turned.

    A blend (``mix``) is a part of another sample beside a part of the first (CutMix, Yun et al. 2019), because half-transparent
    objects are no objects; ``zoom`` enlarges or shrinks around a random place. Gains and noise are those of other samples.
    """

    truth: tuple[Floats, ...] = field(default=())

    def __call__(self, index: int) -> npt.NDArray[np.generic]:
        return self.drawn(index)[0]

    def boxes(self, index: int) -> Floats:
        """Corners (pixels) and class number of each object, and the angle where objects are turned."""
        return self.drawn(index)[1]

    def drawn(self, index: int) -> tuple[npt.NDArray[np.generic], Floats]:
        """The view and its boxes."""
        rng = np.random.default_rng([self.seed, 5, index])
        number = int(rng.integers(len(self.dn)))
        if rng.random() < self.settings.plain:
            return self.dn[number], self._truth(number)
        x, boxes = self._zoomed(self.dn[number].astype(np.float32), self._truth(number), rng)
        if rng.random() < self.settings.mix:
            x, boxes = self._joined(x, boxes, rng)
        moved = np.moveaxis(x, 0, -1)
        x = np.moveaxis(self._varied(moved, self._missing(moved), rng), -1, 0)
        if self.settings.flip:
            turn = int(rng.integers(TURNS))
            x = turned_image(x, turn)
            boxes = turned(boxes, turn, self.spec.tile, boxes.shape[1] > TRUTH)
        return self._typed(np.ascontiguousarray(x)), boxes

    def _truth(self, number: int) -> Floats:
        return self.truth[number] if self.truth else np.zeros((0, 5), np.float32)

    def _joined(self, x: Floats, boxes: Floats, rng: Rng) -> tuple[Floats, Floats]:
        """Left of a random column one sample, right of it another."""
        other = int(rng.integers(len(self.dn)))
        size, seam = self.spec.tile, int(rng.integers(self.spec.tile // 4, 3 * self.spec.tile // 4))
        joined = np.concatenate([x[..., :seam], self.dn[other][..., seam:].astype(np.float32)], axis=2)
        parts = _within(boxes, 0, seam, size), _within(self._truth(other), seam, size, size)
        return joined, np.concatenate(parts)

    def _zoomed(self, x: Floats, boxes: Floats, rng: Rng) -> tuple[Floats, Floats]:
        """Nearest pixels of a window; outside of the sample its mirror image, whose objects are boxes too."""
        if not self.settings.zoom or rng.random() >= self.settings.zoom:
            return x, boxes
        size = self.spec.tile
        factor = float(np.exp(rng.uniform(*np.log(ZOOM))))
        span = size / factor
        low = rng.uniform(min(0, size - span), max(0, size - span), 2)
        at = [np.floor(start + (np.arange(size) + 0.5) / factor).astype(int) for start in low]
        rows, cols = (np.where(i < 0, -1 - i, np.where(i >= size, 2 * size - 1 - i, i)) for i in at)
        seen = np.concatenate([_mirrored(boxes, size, dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)])
        seen[:, :4] = (seen[:, :4] - np.array([low[1], low[0]] * 2, np.float32)) * np.float32(factor)
        return x[:, rows][:, :, cols], _within(seen, 0, size, size)


def _mirrored(boxes: Floats, size: int, dx: int, dy: int) -> Floats:
    """Boxes of the mirror image beyond the left (-1) or right (1) edge, and above or below."""
    out = boxes.copy()
    for columns, side in (((0, 2), dx), ((1, 3), dy)):
        if side:
            edge = 0 if side < 0 else 2 * size
            out[:, columns[0]], out[:, columns[1]] = edge - boxes[:, columns[1]], edge - boxes[:, columns[0]]
            out[:, TRUTH:] *= -1
    return out


def _within(boxes: Floats, left: int, right: int, size: int) -> Floats:
    """What of boxes lies between two columns and inside the tile, where that is enough of them."""
    out = boxes.copy()
    inside, kept = within(places(boxes, TRUTH), (left, 0), (right, size))
    out[:, :CORNERS] = inside[:, :CORNERS]
    return out[kept]
