"""What a detector of turned boxes in two parts (Oriented R-CNN, Xie et al. 2021) needs between and behind them.

The first part says of every anchor how likely an object is there and by how much it must be moved; from that come proposals, as
many as the second part takes. That says of each its classes and its box. Boxes are those of :mod:`rsedge.data.boxes.oriented`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import Floats, Numbers, cornered, suppressed
from rsedge.data.boxes.oriented import enclosing, regular
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)
SCALE = 8
"""Edge of an anchor in strides."""
SPREAD = np.array([1, 1, 1, 1, 0.5, 0.5])
"""By which the first part's offsets are multiplied."""
MOST_GROWTH = abs(math.log(16 / 1000))
"""Of a side, either way, as a logarithm."""


class OrientedSettings(Record):
    """The authors' numbers for testing."""

    per_level: int = 2000
    proposal_overlap: float = 0.8
    score: float = 0.05
    overlap: float = 0.1
    most: int = 2000


@dataclass(frozen=True)
class OrientedBoxes:
    """Detections, class after class and the most certain first: boxes (n, 5), scores (n,), class numbers (n,)."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


def edges(image: int) -> tuple[int, ...]:
    """Rows and columns of an image's maps: four times the tokens', twice, those, half of them (rounded down), a quarter (up)."""
    token = image // 16
    return 4 * token, 2 * token, token, token // 2, -(-(token // 2) // 2)


def anchors(image: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """All anchors as corners (A, 4) and the number of their map (A,): row by row, at each place by ratio of height to width."""
    found, levels = [], []
    for level, (stride, edge) in enumerate(zip(STRIDES, edges(image), strict=True)):
        roots = np.sqrt(RATIOS)
        half = np.stack([1 / roots, roots], 1) * stride * SCALE / 2
        steps = np.arange(edge) * stride
        centres = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 1, 2)
        boxes = np.concatenate([centres - half, centres + half], -1).reshape(-1, 4)
        found.append(boxes)
        levels.append(np.full(len(boxes), level))
    return np.concatenate(found).astype(np.float32), np.concatenate(levels).astype(np.int64)


def moved(boxes: Numbers, offsets: Numbers) -> Numbers:
    """Anchors (n, 4) with offsets (n, 6) -> turned boxes (n, 5).

    The offsets move and stretch the box around the object, and say where its corners touch the upper and the right edge; the
    shorter diagonal of that parallelogram is drawn out to a rectangle's. Where both touch in one corner, the box stays as it is.
    """
    dx, dy, dw, dh, da, db = (offsets * SPREAD).T
    size = boxes[:, 2:] - boxes[:, :2]
    width = size[:, 0] * np.exp(dw.clip(-MOST_GROWTH, MOST_GROWTH))
    height = size[:, 1] * np.exp(dh.clip(-MOST_GROWTH, MOST_GROWTH))
    centre = boxes[:, :2] + size / 2 + size * np.stack([dx, dy], 1)
    upper = np.stack([da.clip(-0.5, 0.5) * width, -height / 2], 1)
    right = np.stack([width / 2, db.clip(-0.5, 0.5) * height], 1)
    lengths = np.stack([np.hypot(*upper.T), np.hypot(*right.T)], 1)
    longest = lengths.max(1, keepdims=True)
    upper, right = (side * longest / length[:, None] for side, length in zip((upper, right), lengths.T, strict=True))
    side = right - upper
    angle = np.arctan2(-side[:, 1], side[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    along = [np.abs(cos * corner[:, 0] - sin * corner[:, 1]) for corner in (upper, right)]
    across = [np.abs(sin * corner[:, 0] + cos * corner[:, 1]) for corner in (upper, right)]
    return regular(np.column_stack([centre, 2 * np.maximum(*along), 2 * np.maximum(*across), angle]))


def proposals(
    objectness: Floats, offsets: Floats, image: int, count: int, settings: OrientedSettings | None = None
) -> tuple[Floats, int]:
    """The first part's answer on one image -> boxes (count, 5) for the second, and how many of them are some; the rest are zeros.

    Args:
        objectness: (A,) of 0 to 1, in the order of :func:`anchors`.
        offsets: (A, 6).
    """
    settings = settings or OrientedSettings()
    places, levels = anchors(image)
    if (len(objectness), len(offsets)) != (len(places), len(places)):
        raise RequestError(
            f"objectness of {len(objectness)} and offsets of {len(offsets)} places; {image} pixels have {len(places)}"
        )
    best = [
        (own := np.flatnonzero(levels == level))[np.argsort(-objectness[own], kind="stable")][: settings.per_level]
        for level in range(len(STRIDES))
    ]
    picks = np.concatenate(best)
    picks = picks[np.argsort(-objectness[picks], kind="stable")]
    boxes = moved(places[picks], offsets[picks])
    kept = suppressed(enclosing(boxes).astype(np.float32), levels[picks], settings.proposal_overlap, count)
    found = np.zeros((count, 5), np.float32)
    found[: len(kept)] = boxes[kept]
    return found, len(kept)


def reported(scores: Floats, boxes: Floats, settings: OrientedSettings | None = None) -> OrientedBoxes:
    """The second part's answer on an image's proposals -> what is reported.

    Args:
        scores: (n, classes + 1), background last.
        boxes: (n, 5).
    """
    settings = settings or OrientedSettings()
    picks, numbers = [], []
    for column in range(scores.shape[1] - 1):
        sure = np.flatnonzero(scores[:, column] > settings.score)
        sure = sure[np.argsort(-scores[sure, column], kind="stable")]
        one = np.zeros(len(sure), np.intp)
        kept = sure[suppressed(cornered(boxes[sure]), one, settings.overlap, settings.most)]
        picks.append(kept)
        numbers.append(np.full(len(kept), column))
    row, number = np.concatenate(picks), np.concatenate(numbers)
    certain = scores[row, number]
    best = np.sort(np.argsort(-certain, kind="stable")[: settings.most])
    return OrientedBoxes(boxes[row[best]], certain[best], number[best].astype(np.int64))


def candidates(scores: Numbers, boxes: Numbers, count: int) -> Floats:
    """What a detector of boxes along rows and columns would give, (R, 5 + classes), of what the second part gave of one image.

    It is of the boxes around the turned ones: centre x, y, width, height, 1 for a proposal and 0 for none, the classes' scores.

    Args:
        scores: (R, classes + 1), background last.
        boxes: (R, 5).
        count: proposals that are some.
    """
    around = enclosing(boxes)
    there = (np.arange(len(around)) < count).astype(np.float32)
    low, high = around[:, :2], around[:, 2:]
    return np.column_stack(((low + high) / 2, high - low, there, scores[:, :-1])).astype(np.float32)
