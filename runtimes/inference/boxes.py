"""Candidates of a detector to boxes: a threshold, then suppression of overlaps, on the host and without torch.

Detectors decode inside their graph (strides and anchors are constants there), so that all runtimes give the same candidates
(:mod:`rsedge.data.boxes.candidates`): ``logits`` (N, A, 5 + classes), two columns more where boxes are turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.candidates import certainties, places_of, width_of
from rsedge.data.boxes.geometry import CORNERS, Floats, suppressed
from rsedge.data.errors import RequestError

_CONSIDERED = 3000
"""Candidates of the highest scores among which overlaps are suppressed; a box kept costs a pass over them."""


@dataclass(frozen=True)
class Boxes:
    """Detections, the most certain first.

    Attributes:
        places: (n, 4) corners x0, y0, x1, y1 in pixels, or (n, 5) with the angle (:mod:`rsedge.data.boxes.geometry`).
        scores, classes: (n,), class numbers.
        picks: (n,) which candidates they are.
    """

    places: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    picks: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def corners(self) -> Floats:
        """(n, 4), of turned boxes as they are before they are turned."""
        return self.places[:, :CORNERS]

    @property
    def table(self) -> Floats:
        """(n, 6) of corners, score and class number, or (n, 7) with the angle."""
        parts = (self.corners, self.scores, self.classes, self.places[:, CORNERS:])
        return np.column_stack(parts).astype(np.float32)


def boxes_of(
    candidates: Floats,
    score: float = 0.25,
    nms_iou: float = 0.45,
    max_detections: int = 300,
    oriented: bool = False,
) -> Boxes:
    """One image's candidates (A, 5 + classes), or (A, 5 + classes + 2) where ``oriented``, to boxes.

    Args:
        candidates: see :mod:`rsedge.data.boxes.candidates`.
        score: objectness times class score that a box needs.
        nms_iou: of two boxes of one class that overlap by more (intersection over union) the less certain one goes.
        max_detections: boxes to keep.
        oriented: boxes are turned.

    Raises:
        RequestError: another shape, or thresholds outside 0 to 1.
    """
    if candidates.ndim != 2 or candidates.shape[1] < width_of(1, oriented):
        raise RequestError(f"candidates must be (A, 5 + classes{' + 2' if oriented else ''}), not {candidates.shape}")
    if not (0 <= score <= 1 and 0 <= nms_iou <= 1):
        raise RequestError(f"score {score} and nms_iou {nms_iou} must lie between 0 and 1")
    certain = certainties(candidates, oriented)
    classes = certain.argmax(1)
    scores = certain[np.arange(len(certain)), classes]
    sure = np.flatnonzero(scores > score)
    order = sure[np.argsort(-scores[sure], kind="stable")][:_CONSIDERED]
    places = places_of(candidates[order], oriented)
    kept = suppressed(places, classes[order], nms_iou, max_detections)
    chosen = order[kept]
    return Boxes(places[kept], scores[chosen].astype(np.float32), classes[chosen].astype(np.int64), chosen)
