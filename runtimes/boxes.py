"""Candidates of a detector to boxes: a threshold, then suppression of overlaps, on the host and without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Boxes:
    """Detections, the most certain first: corners (n, 4) as x0, y0, x1, y1 in pixels, scores (n,), class numbers (n,)."""

    corners: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


def boxes_of(candidates: Floats, score: float = 0.25, overlap: float = 0.45, most: int = 300) -> Boxes:
    """One image's candidates (A, 5 + classes) of a YOLO head to boxes.

    Args:
        candidates: centre x, y, width, height (pixels), objectness, class scores.
        score: objectness times class score that a box needs.
        overlap: of two boxes of one class that overlap by more (intersection over union) the less certain one goes.
        most: boxes to keep.

    Raises:
        RequestError: another shape, or thresholds outside 0 to 1.
    """
    if candidates.ndim != 2 or candidates.shape[1] < 6:
        raise RequestError(f"candidates must be (A, 5 + classes), not {candidates.shape}")
    if not (0 <= score <= 1 and 0 <= overlap <= 1):
        raise RequestError(f"score {score} and overlap {overlap} must lie between 0 and 1")
    certain = candidates[:, 4:5] * candidates[:, 5:]
    classes = certain.argmax(1)
    scores = certain[np.arange(len(certain)), classes]
    keep = np.flatnonzero(scores > score)
    order = keep[np.argsort(-scores[keep], kind="stable")]
    centre, half = candidates[order, :2], candidates[order, 2:4] / 2
    corners = np.concatenate((centre - half, centre + half), 1)
    kept: list[int] = []
    alive = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == most:
            break
        same = classes[order] == classes[order[i]]
        alive &= ~(same & (overlaps(corners[i], corners) > overlap))
    chosen = order[kept]
    return Boxes(corners[kept].astype(np.float32), scores[chosen].astype(np.float32), classes[chosen].astype(np.int64))


def overlaps(box: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> Floats:
    """Intersection over union of one box (4,) with others (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    union = (box[2:] - box[:2]).prod() + areas - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0).astype(np.float32)
