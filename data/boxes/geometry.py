"""Tables of boxes: corners x low, y low, x high, y high (pixels), and of boxes that are turned the angle last.

A turned box is one along rows and columns, turned about its centre by an angle (radians, counter-clockwise as one sees it); without
an angle, or with 0, it is not. So one table holds both: (n, 4) or (n, 5) of places here, and behind the columns that every box has
(:data:`TRUTH`, :data:`FOUND`) a column more where boxes are turned. :mod:`.oriented` has the same boxes by centre and sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.oriented import corners_of, enclosing, overlaps_of, seen_part

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.floating[Any]]
CORNERS = 4
TRUTH = 5
"""Columns of an object beside its angle: corners and class number."""
FOUND = 6
"""Columns of a detection beside its angle: corners, score and class number."""
LEAST_SHARE = 0.3
"""Of a box: less left at a seam or edge is no object any more."""
_AT_ONCE = 32
"""Boxes whose overlaps with all others are worked out together."""


def places(table: Numbers, columns: int) -> Numbers:
    """Corners and, where boxes are turned, the angle: (n, 4) or (n, 5) of a table of ``columns`` beside the angle."""
    return np.concatenate([table[:, :CORNERS], table[:, columns:]], 1)


def centred(boxes: Numbers) -> Numbers:
    """Places (n, 4 or 5) by centre x, y, width, height and angle: (n, 5)."""
    low, high = boxes[:, :2], boxes[:, 2:4]
    angle = boxes[:, 4:5] if boxes.shape[1] > CORNERS else np.zeros_like(low[:, :1])
    return np.concatenate([(low + high) / 2, high - low, angle], 1)


def cornered(boxes: Numbers) -> Numbers:
    """(n, 5) of centre x, y, width, height and angle as places (n, 5)."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half, boxes[:, 4:5]], 1)


def outlines(boxes: Numbers) -> Numbers:
    """Corners (n, 4, 2) of places (n, 4 or 5), one after the other around each box."""
    if boxes.shape[1] == CORNERS:
        return np.stack([boxes[:, [0, 1]], boxes[:, [0, 3]], boxes[:, [2, 3]], boxes[:, [2, 1]]], 1)
    return corners_of(centred(boxes))


def upright(boxes: Numbers) -> Numbers:
    """The smallest boxes (n, 4) along rows and columns around places (n, 4 or 5)."""
    return boxes if boxes.shape[1] == CORNERS else enclosing(centred(boxes)).astype(boxes.dtype)


def overlaps(first: Numbers, second: Numbers) -> Floats:
    """Intersection over union of places (n, 4 or 5) with places (m, 4 or 5): (n, m); 0 where neither has an area."""
    if max(first.shape[1], second.shape[1]) > CORNERS:
        return overlaps_of(centred(first), centred(second)).astype(np.float32)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [(b[:, 2:4] - b[:, :2]).prod(1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0).astype(np.float32)


def clipped(boxes: Numbers, low: tuple[float, float], high: tuple[float, float]) -> Numbers:
    """What of places (n, 4 or 5) lies between two corners x, y of the image; boxes keep their angles."""
    ends = np.array(low, boxes.dtype), np.array(high, boxes.dtype)
    out = boxes.copy()
    if boxes.shape[1] == CORNERS:
        out[:, :2], out[:, 2:] = boxes[:, :2].clip(*ends), boxes[:, 2:].clip(*ends)
        return out
    around = upright(boxes)
    cut = (around[:, :2] < ends[0]).any(1) | (around[:, 2:] > ends[1]).any(1)
    for i in np.flatnonzero(cut):
        out[i] = cornered(seen_part(centred(boxes[i : i + 1])[0], *ends)[None])[0]
    return out


def upright_within(boxes: Numbers, low: tuple[float, float], high: tuple[float, float]) -> Numbers:
    """:func:`upright` boxes of turned ones that are :func:`clipped`: a corner of such a one may still lie beyond the edge."""
    return boxes if boxes.shape[1] == CORNERS else clipped(upright(boxes), low, high)


def within(
    boxes: Numbers, low: tuple[float, float], high: tuple[float, float]
) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """:func:`clipped` boxes, and which of them are objects there still: those with more than :data:`LEAST_SHARE` of their area
    left, and their centre between the corners, by which tiles and cells know whose they are."""
    inside = clipped(boxes, low, high)
    before, after = ((b[:, 2:4] - b[:, :2]).prod(1) for b in (boxes, inside))
    centre = (inside[:, :2] + inside[:, 2:4]) / 2
    there = ((centre >= np.array(low)) & (centre < np.array(high))).all(1)
    return inside, there & (after > LEAST_SHARE * before)


def turned(boxes: Floats, turn: int, size: int, angled: bool = False) -> Floats:
    """Boxes (..., 4 or more columns) of a square image of ``size`` pixels that ``np.rot90(image, turn % 4)`` turns and, from 4 on,
    a flip of its columns mirrors; ``angled``: the last column is their angle."""
    out = boxes.copy()
    for _ in range(turn % 4):
        # Width and height change places, so that the angle stays.
        x0, y0, x1, y1 = (out[..., i].copy() for i in range(4))
        out[..., 0], out[..., 1], out[..., 2], out[..., 3] = y0, size - x1, y1, size - x0
    if turn >= 4:
        out[..., 0], out[..., 2] = size - out[..., 2].copy(), size - out[..., 0].copy()
        if angled:
            out[..., -1] *= -1
    return out


def matched(found: Numbers, truth: Numbers, threshold: float) -> npt.NDArray[np.intp]:
    """For each found place (n, 4 or 5), in the order given, the number of the true one (m, 4 or 5) that it takes, -1 for none.

    Each takes the one that it overlaps most among those still free, if by at least ``threshold`` (COCO's matching, Lin et al.
    2014), so the most certain boxes come first.
    """
    taken = np.full(len(found), -1, dtype=np.intp)
    if not len(found) or not len(truth):
        return taken
    shares = overlaps(found, truth)
    for i in range(len(found)):
        best = int(shares[i].argmax())
        if shares[i, best] >= threshold:
            taken[i] = best
            shares[:, best] = -1
    return taken


def suppressed(
    boxes: Numbers, classes: npt.NDArray[np.integer[Any]], nms_iou: float, max_detections: int
) -> npt.NDArray[np.intp]:
    """Numbers of places (n, 4 or 5), the most certain first, that no kept one of their class overlaps by more than ``nms_iou``."""
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < max_detections:
        block = left[:_AT_ONCE]
        same = (overlaps(boxes[block], boxes[left]) > nms_iou) & (classes[block][:, None] == classes[left])
        alive = np.ones(len(left), dtype=bool)
        for i, number in enumerate(block.tolist()):
            if alive[i]:
                kept.append(number)
                alive &= ~same[i]
        left = left[_AT_ONCE:][alive[_AT_ONCE:]]
    return np.array(kept[:max_detections], dtype=np.intp)
