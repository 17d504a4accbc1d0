"""How detections do: average precision against labels, and agreement with another detector's boxes.

Average precision after COCO (Lin et al. 2014): boxes of all images by score, matched greedily within their image, precision made
monotone and averaged over 101 recalls; ``ap50`` at an overlap (intersection over union) of 0.5, ``ap50_95`` the mean over 0.50,
0.55 ... 0.95. Objects of all sizes count, and as many boxes per image as the detector keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import FOUND, TRUTH, Floats, matched, places
from rsedge.data.metrics import statistics
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Statistic, estimate, ratio, summed, units_of

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_RECALLS = np.linspace(0, 1, 101)
Truth = Sequence[Floats]
"""Per image (M, 5): corners (pixels) and class number; (M, 6) of turned boxes, their angle last."""
Found = Sequence[Floats]
"""Per image (n, 6): corners (pixels), score and class number, the most certain first; (n, 7) of turned ones, their angle last."""
Hits = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], int]
"""Scores, whether each is a hit, and how many objects there were."""


def hits_of(found: Floats, truth: Floats, number: int, threshold: float) -> Hits:
    """One image's boxes of one class against its objects of that class."""
    own, real = found[found[:, 5] == number], truth[truth[:, 4] == number]
    taken = matched(places(own, FOUND), places(real, TRUTH), threshold)
    return own[:, 4].astype(np.float64), taken >= 0, len(real)


def average_precision(parts: Sequence[Hits]) -> float:
    """Of the images' hits of one class; NaN where there are no objects."""
    return float(average_precisions(parts, np.ones((1, len(parts))))[0])


def average_precisions(parts: Sequence[Hits], counts: statistics.Floats) -> statistics.Floats:
    """Average precision of one class where image i stands counts[d, i] times in draw d: (D,); NaN where there are no objects."""
    objects = counts @ np.array([count for _, _, count in parts], dtype=np.float64)
    scores = np.concatenate([s for s, _, _ in parts])
    if not len(scores):
        return np.where(objects > 0, 0.0, np.nan)
    order = np.argsort(-scores, kind="stable")
    image = np.repeat(np.arange(len(parts)), [len(s) for s, _, _ in parts])[order]
    hits = np.concatenate([h for _, h, _ in parts])[order]
    every = []
    for row, total in zip(counts, objects, strict=True):
        weights = row[image]
        caught, predicted = (weights * hits).cumsum(), weights.cumsum()
        precision = np.divide(caught, predicted, out=np.zeros(len(predicted)), where=predicted > 0)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(caught / total if total else caught, _RECALLS, side="left")
        every.append(np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0).mean() if total else np.nan)
    return np.array(every)


@dataclass(frozen=True)
class BoxComparison(Comparison):
    """A detector's boxes against labels.

    Attributes:
        found: its boxes of each image.
        truth: the objects of each image.
        names: of the classes.
        groups: (N,) of the images, which the bootstrap draws.
        score: certainty from which a box counts for ``precision``, ``recall`` and ``f1`` (overlap 0.5).
        seed: of the interval of ``ap50``.
    """

    found: Found
    truth: Truth
    names: Sequence[str]
    groups: npt.NDArray[np.str_]
    score: float
    seed: int = 0

    @cached_property
    def hits(self) -> dict[float, list[list[Hits]]]:
        """By overlap, by class, then by image."""
        return {t: _hits(self.found, self.truth, len(self.names), t) for t in THRESHOLDS}

    @cached_property
    def sure(self) -> npt.NDArray[np.float64]:
        """By image, (N, 3): hits and boxes of at least ``score`` (overlap 0.5), and objects."""
        return _sure(self.hits[THRESHOLDS[0]], self.score, len(self.truth))

    @property
    def details(self) -> dict[str, Any]:
        """``ap50_interval`` (95 %, None with one group), ``ap50_by_class``, ``precision``, ``recall``, ``objects``, ``n`` (images);
        None where there is nothing to judge by."""
        per_class = [average_precision(parts) for parts in self.hits[THRESHOLDS[0]]]
        hits, predicted, objects = (int(column.sum()) for column in self.sure.T)
        interval = estimate(ap50_statistic(self), self.seed).interval
        return {
            "ap50_interval": None if interval is None else list(interval),
            "ap50_by_class": {n: None if np.isnan(v) else v for n, v in zip(self.names, per_class, strict=True)},
            "precision": hits / predicted if predicted else None,
            "recall": hits / objects if objects else None,
            "objects": objects,
            "n": len(self.truth),
        }


def ap50_statistic(boxes: BoxComparison) -> Statistic:
    """Average precision at an overlap of 0.5, mean over classes that occur."""
    return _precision_statistic(boxes, THRESHOLDS[:1])


def ap50_95_statistic(boxes: BoxComparison) -> Statistic:
    """Average precision, mean over overlaps and over classes that occur."""
    return _precision_statistic(boxes, THRESHOLDS)


def _precision_statistic(boxes: BoxComparison, thresholds: Sequence[float]) -> Statistic:
    unit, units = units_of(boxes.groups)

    def value(counts: statistics.Floats) -> statistics.Floats:
        return np.mean([_over_classes(boxes.hits[t], counts[:, unit]) for t in thresholds], axis=0)

    return Statistic(units, value, 0.0, 1.0, "there are no objects to find")


def f1_of_boxes(boxes: BoxComparison) -> Statistic:
    """F1 of the boxes of at least ``score``."""
    sure = summed(boxes.sure, *units_of(boxes.groups))
    return ratio(2 * sure[:, 0], sure[:, 1] + sure[:, 2])


@dataclass(frozen=True)
class BoxLikeness(Comparison):
    """A detector's boxes ``found`` against another's, ``reference``; those of at least ``score`` count."""

    found: Found
    reference: Found
    groups: npt.NDArray[np.str_]
    score: float


def agreement_of_boxes(boxes: BoxLikeness) -> Statistic:
    """:func:`box_agreement` by groups of images."""
    counts = summed(_equal_boxes(boxes.found, boxes.reference, boxes.score), *units_of(boxes.groups))
    return ratio(2 * counts[:, 0], counts[:, 1])


def _hits(found: Found, truth: Truth, classes: int, threshold: float) -> list[list[Hits]]:
    """By class, then by image."""
    return [[hits_of(f, g, k, threshold) for f, g in zip(found, truth, strict=True)] for k in range(classes)]


def _sure(by_class: Sequence[Sequence[Hits]], score: float, images: int) -> npt.NDArray[np.float64]:
    """By image, (N, 3): hits and boxes of at least ``score``, and objects."""
    rows = np.zeros((images, 3))
    for parts in by_class:
        for row, (scores, hits, objects) in zip(rows, parts, strict=True):
            row += ((hits & (scores >= score)).sum(), (scores >= score).sum(), objects)
    return rows


def _over_classes(by_class: Sequence[Sequence[Hits]], counts: statistics.Floats) -> statistics.Floats:
    """Mean over the classes that occur; NaN where there are no objects at all."""
    values = np.array([average_precisions(parts, counts) for parts in by_class])
    known = ~np.isnan(values)
    number = known.sum(0)
    return np.divide(np.where(known, values, 0).sum(0), number, out=np.full(len(number), np.nan), where=number > 0)


def box_agreement(found: Found, reference: Found, score: float) -> float:
    """F1 of two detectors' boxes of at least ``score``: same class, overlap of at least 0.5; 1 where neither finds any."""
    both, total = _equal_boxes(found, reference, score).sum(0)
    return float(2 * both / total) if total else 1.0


def _equal_boxes(found: Found, reference: Found, score: float) -> npt.NDArray[np.float64]:
    """By image, (N, 2): boxes that both have, and boxes of both together."""
    rows = np.zeros((len(found), 2))
    for row, a, b in zip(rows, found, reference, strict=True):
        a, b = a[a[:, 4] >= score], b[b[:, 4] >= score]
        row[1] = len(a) + len(b)
        for number in np.unique(a[:, 5]):
            mine, other = (places(x[x[:, 5] == number], FOUND) for x in (a, b))
            row[0] += int((matched(mine, other, 0.5) >= 0).sum())
    return rows


def box_likeness(found: Found, reference: Found, classes: int, score: float) -> float:
    """``ap50`` of one detector where the boxes of another of at least ``score`` are the objects: unlike
    :func:`box_agreement` it sees small changes of certainty; 1 where the other finds nothing."""
    truth = [np.delete(r, 4, axis=1)[r[:, 4] >= score] for r in reference]
    values = [
        average_precision([hits_of(f, g, k, 0.5) for f, g in zip(found, truth, strict=True)]) for k in range(classes)
    ]
    return 1.0 if np.isnan(values).all() else float(np.nanmean(values))
