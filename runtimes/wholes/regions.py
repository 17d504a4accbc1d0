"""Regions cut out of feature maps: the average of bilinear samples in each cell of a box (He et al. 2017, "Mask R-CNN").

Boxes have any shape, so that the number of samples differs from one to the next; no graph of fixed shape does it. Samples lie on a
grid, so rows and columns are taken one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import Floats

STRIDES = (4, 8, 16, 32)
FINEST = 56.0
"""Boxes of up to twice this edge are cut out of the finest map, each next map has those up to twice as large."""


def cut(maps: Sequence[Floats], boxes: Floats, size: int, strides: Sequence[int] = STRIDES) -> Floats:
    """Regions (R, C, size, size) of boxes (R, 4), corners in pixels, each out of the map for its size.

    Args:
        maps: (C, rows, columns) each, the finest first.
        strides: pixels per place of each.
    """
    found = np.zeros((len(boxes), maps[0].shape[0], size, size), np.float32)
    levels = level_of(boxes, len(maps))
    for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = np.flatnonzero(levels == level)
        if not len(chosen):
            continue
        last = np.ascontiguousarray(one.transpose(1, 2, 0))
        corners = boxes[chosen].astype(np.float32) / np.float32(stride) - np.float32(0.5)
        rows = shares(corners[:, 1], corners[:, 3], size, last.shape[0])
        columns = shares(corners[:, 0], corners[:, 2], size, last.shape[1])
        for i, r, c in zip(chosen, rows, columns, strict=True):
            found[i] = _weighed(last, r, c)
    return found


def level_of(boxes: Floats, levels: int) -> npt.NDArray[np.int64]:
    """Which map each box is cut out of."""
    edges = np.sqrt(np.clip((boxes[:, 2:4] - boxes[:, :2]).prod(1), 0, None))
    return np.clip(np.floor(np.log2(edges / FINEST + 1e-6)), 0, levels - 1).astype(np.int64)


def shares(low: Floats, high: Floats, size: int, length: int) -> Floats:
    """What each place of a line of ``length`` counts in each of ``size`` cells between ``low`` and ``high``: (R, size, length).

    A cell has as many samples as places it is wide (rounded up), evenly. Samples more than a place outside count as zero, those
    less outside as the place at the edge.
    """
    cell = (high - low) / size
    count = np.ceil(cell).astype(np.int64)
    most = int(count.max(initial=0))
    found = np.zeros((len(low), size, length), np.float32)
    if most == 0:
        return found
    step = np.arange(most)
    inside = (step[None] + 0.5) * (cell / np.maximum(count, 1))[:, None]
    places = (low[:, None] + np.arange(size) * cell[:, None])[..., None] + inside[:, None]
    there = (step[None] < count[:, None])[:, None] & (places >= -1) & (places <= length)
    places = np.clip(places, 0, length - 1)
    first = places.astype(np.int64)
    further = (places - first).astype(np.float32)
    weight = there / np.maximum(count, 1)[:, None, None].astype(np.float32)
    box, row = (np.broadcast_to(axis, places.shape) for axis in np.ogrid[: len(low), :size, :most][:2])
    np.add.at(found, (box, row, first), (1 - further) * weight)
    np.add.at(found, (box, row, np.minimum(first + 1, length - 1)), further * weight)
    return found


def _weighed(one: Floats, rows: Floats, columns: Floats) -> Floats:
    """A map (rows, columns, C) weighed by rows (size, H) and columns (size, W) -> (C, size, size)."""
    top, bottom = _spanned(rows)
    left, right = _spanned(columns)
    piece = one[top:bottom, left:right]
    narrow = rows[:, top:bottom] @ piece.reshape(bottom - top, -1)
    narrow = narrow.reshape(len(rows), right - left, one.shape[2])
    return np.asarray((columns[:, left:right] @ narrow).transpose(2, 0, 1))


def _spanned(weights: Floats) -> tuple[int, int]:
    """The first place that any cell counts, and that behind the last."""
    used = np.flatnonzero(weights.any(0))
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
