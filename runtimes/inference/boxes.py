"""Candidates of a detector to boxes: a threshold, then suppression of overlaps, on the host and without torch.

Detectors decode inside their graph (strides and anchors are constants there), so that all runtimes give the same candidates:
``logits`` (N, A, 5 + classes) of centre x, y, width, height (pixels), objectness and class scores (0 to 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import Floats, suppressed
from rsedge.data.errors import RequestError

_CONSIDERED = 3000
"""Candidates of the highest scores among which overlaps are suppressed; a box kept costs a pass over them."""


@dataclass(frozen=True)
class Boxes:
    """Detections, the most certain first: corners (n, 4) as x0, y0, x1, y1 in pixels, scores (n,), class numbers (n,), and which
    candidates they are (n,)."""

    corners: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    picks: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.scores)


def boxes_of(candidates: Floats, score: float = 0.25, nms_iou: float = 0.45, max_detections: int = 300) -> Boxes:
    """One image's candidates (A, 5 + classes) of a YOLO head to boxes.

    Args:
        candidates: centre x, y, width, height (pixels), objectness, class scores.
        score: objectness times class score that a box needs.
        nms_iou: of two boxes of one class that overlap by more (intersection over union) the less certain one goes.
        max_detections: boxes to keep.

    Raises:
        RequestError: another shape, or thresholds outside 0 to 1.
    """
    if candidates.ndim != 2 or candidates.shape[1] < 6:
        raise RequestError(f"candidates must be (A, 5 + classes), not {candidates.shape}")
    if not (0 <= score <= 1 and 0 <= nms_iou <= 1):
        raise RequestError(f"score {score} and nms_iou {nms_iou} must lie between 0 and 1")
    certain = candidates[:, 4:5] * candidates[:, 5:]
    classes = certain.argmax(1)
    scores = certain[np.arange(len(certain)), classes]
    sure = np.flatnonzero(scores > score)
    order = sure[np.argsort(-scores[sure], kind="stable")][:_CONSIDERED]
    centre, half = candidates[order, :2], candidates[order, 2:4] / 2
    corners = np.concatenate((centre - half, centre + half), 1).astype(np.float32)
    kept = suppressed(corners, classes[order], nms_iou, max_detections)
    chosen = order[kept]
    return Boxes(corners[kept], scores[chosen].astype(np.float32), classes[chosen].astype(np.int64), chosen)
