"""Axis-aligned boxes as corners x low, y low, x high, y high (pixels): overlaps, turns, and which of two sets belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.floating[Any]]


def overlaps(first: Numbers, second: Numbers) -> Floats:
    """Intersection over union of boxes (n, 4) with boxes (m, 4): (n, m); 0 where neither has an area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [(b[:, 2:4] - b[:, :2]).prod(1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0).astype(np.float32)


def turned(boxes: Floats, turn: int, size: int) -> Floats:
    """Boxes (..., 4 or more columns) of a square image of ``size`` pixels that ``np.rot90(image, turn % 4)`` turns and, from 4 on,
    a flip of its columns mirrors."""
    out = boxes.copy()
    for _ in range(turn % 4):
        x0, y0, x1, y1 = (out[..., i].copy() for i in range(4))
        out[..., 0], out[..., 1], out[..., 2], out[..., 3] = y0, size - x1, y1, size - x0
    if turn >= 4:
        out[..., 0], out[..., 2] = size - out[..., 2].copy(), size - out[..., 0].copy()
    return out


def matched(found: Numbers, truth: Numbers, threshold: float) -> npt.NDArray[np.intp]:
    """For each found box (n, 4), in the order given, the number of the true box (m, 4) that it takes, -1 for none.

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
    corners: Floats, classes: npt.NDArray[np.int64], nms_iou: float, max_detections: int
) -> npt.NDArray[np.intp]:
    """Numbers of the boxes (n, 4), the most certain first, that no kept box of their class overlaps by more than ``nms_iou``."""
    kept: list[int] = []
    alive = np.ones(len(corners), dtype=bool)
    for i in range(len(corners)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == max_detections:
            break
        alive &= ~((classes == classes[i]) & (overlaps(corners[i : i + 1], corners)[0] > nms_iou))
    return np.array(kept, dtype=np.intp)
