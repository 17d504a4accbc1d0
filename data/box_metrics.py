"""How detections do: average precision against labels, and agreement with another detector's boxes.

Average precision after COCO (Lin et al. 2014): boxes of all images by score, matched greedily within their image, precision made
monotone and averaged over 101 recalls; ``ap50`` at an overlap (intersection over union) of 0.5, ``ap50_95`` the mean over 0.50,
0.55 ... 0.95. Objects of all sizes count, and as many boxes per image as the detector keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.box_geometry import Floats, matched

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_RECALLS = np.linspace(0, 1, 101)
RESAMPLES = 500
Truth = Sequence[Floats]
"""Per image (M, 5): corners (pixels) and class number."""
Found = Sequence[Floats]
"""Per image (n, 6): corners (pixels), score and class number, the most certain first."""
Hits = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], int]
"""Scores, whether each is a hit, and how many objects there were."""


def hits_of(found: Floats, truth: Floats, number: int, threshold: float) -> Hits:
    """One image's boxes of one class against its objects of that class."""
    own, real = found[found[:, 5] == number], truth[truth[:, 4] == number]
    return own[:, 4].astype(np.float64), matched(own[:, :4], real[:, :4], threshold) >= 0, len(real)


def average_precision(parts: Sequence[Hits]) -> float:
    """Of the images' hits of one class; NaN where there are no objects."""
    objects = sum(count for _, _, count in parts)
    if not objects:
        return float("nan")
    scores, hits = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    hits = hits[np.argsort(-scores, kind="stable")]
    recall, precision = hits.cumsum() / objects, hits.cumsum() / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0).mean()) if len(best) else 0.0


def box_metrics(
    found: Found, truth: Truth, names: Sequence[str], groups: npt.NDArray[np.str_], score: float, seed: int = 0
) -> dict[str, Any]:
    """The record of one detector.

    Args:
        groups: (N,) of the images, for the interval of ``ap50`` (bootstrap over groups).
        score: certainty from which a box counts for ``precision``, ``recall`` and ``f1`` (overlap 0.5).

    Returns:
        ``ap50``, ``ap50_95`` (means over classes that occur), ``ap50_interval`` (95 %, None with one group), ``ap50_by_class``,
        ``precision``, ``recall``, ``f1``, ``objects``, ``n`` (images).
    """
    table = {t: [[hits_of(f, g, k, t) for f, g in zip(found, truth, strict=True)] for k in range(len(names))]
             for t in THRESHOLDS}  # fmt: skip
    per_class = [average_precision(parts) for parts in table[0.5]]
    every = [[average_precision(parts) for parts in table[t]] for t in THRESHOLDS]
    sure = [(part[1] & (part[0] >= score), part[0] >= score) for parts in table[0.5] for part in parts]
    hits, told = (int(sum(one[i].sum() for one in sure)) for i in (0, 1))
    objects = sum(len(g) for g in truth)
    return {
        "ap50": _mean(per_class),
        "ap50_95": _mean([_mean(row) for row in every]),
        "ap50_interval": _interval(table[0.5], groups, seed),
        "ap50_by_class": {n: None if np.isnan(v) else v for n, v in zip(names, per_class, strict=True)},
        "precision": hits / told if told else 0.0,
        "recall": hits / objects if objects else 0.0,
        "f1": 2 * hits / (told + objects) if told + objects else 1.0,
        "objects": objects,
        "n": len(truth),
    }


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else 0.0


def _interval(by_class: Sequence[Sequence[Hits]], groups: npt.NDArray[np.str_], seed: int) -> list[float] | None:
    """95 % interval of the mean of ``average_precision`` over draws of whole groups."""
    names = np.unique(groups)
    if len(names) < 2:
        return None
    members = [np.flatnonzero(groups == name) for name in names]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        images = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        values = [average_precision([parts[i] for i in images]) for parts in by_class]
        if not np.isnan(values).all():
            drawn.append(_mean(values))
    return [float(np.quantile(drawn, q)) for q in (0.025, 0.975)] if drawn else None


def box_agreement(found: Found, reference: Found, score: float) -> float:
    """F1 of two detectors' boxes of at least ``score``: same class, overlap of at least 0.5; 1 where neither finds any."""
    both = total = 0
    for a, b in zip(found, reference, strict=True):
        a, b = a[a[:, 4] >= score], b[b[:, 4] >= score]
        total += len(a) + len(b)
        for number in np.unique(a[:, 5]):
            mine, other = (x[x[:, 5] == number, :4] for x in (a, b))
            both += int((matched(mine, other, 0.5) >= 0).sum())
    return 2 * both / total if total else 1.0


def box_likeness(found: Found, reference: Found, classes: int, score: float) -> float:
    """``ap50`` of one detector where the boxes of another of at least ``score`` are the objects: unlike
    :func:`box_agreement` it sees small changes of certainty; 1 where the other finds nothing."""
    truth = [np.column_stack([r[:, :4], r[:, 5]])[r[:, 4] >= score] for r in reference]
    values = [
        average_precision([hits_of(f, g, k, 0.5) for f, g in zip(found, truth, strict=True)]) for k in range(classes)
    ]
    return 1.0 if np.isnan(values).all() else _mean(values)
