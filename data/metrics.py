"""Accuracy of dense and global class predictions, all from one confusion matrix.

Sources: Cohen (1960) for kappa; Jaccard index per class (IoU). Intervals are block bootstraps, since neighbouring
pixels are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


def confusion_matrix(
    labels: IntArray, predictions: IntArray, classes: int, ignore: int | None = 255
) -> npt.NDArray[np.int64]:
    """Counts, shape (classes, classes): rows are labels, columns are predictions.

    Pixels whose label is ``ignore`` or whose prediction is no class (255 = nodata) do not count.
    """
    labels, predictions = np.asarray(labels).ravel(), np.asarray(predictions).ravel()
    keep = (labels >= 0) & (labels < classes) & (predictions >= 0) & (predictions < classes)
    if ignore is not None:
        keep &= labels != ignore
    index = labels[keep].astype(np.int64) * classes + predictions[keep].astype(np.int64)
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def kappa(matrix: npt.NDArray[np.integer]) -> float:
    """Cohen's kappa; 0 where it is not defined (one class only on both sides)."""
    total = float(matrix.sum())
    if total == 0:
        return 0.0
    observed = float(np.trace(matrix)) / total
    expected = float((matrix.sum(0).astype(float) * matrix.sum(1)).sum()) / total**2
    return 0.0 if expected >= 1 else (observed - expected) / (1 - expected)


def accuracy(matrix: npt.NDArray[np.integer]) -> float:
    """Share of pixels whose prediction equals the label."""
    return float(np.trace(matrix) / matrix.sum()) if matrix.sum() else 0.0


def iou(matrix: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Intersection over union per class, shape (classes,); NaN for a class that occurs on neither side."""
    hit = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)


def f1(matrix: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """F1 per class (van Rijsbergen 1979), shape (classes,); NaN for a class that occurs on neither side."""
    size = (matrix.sum(0) + matrix.sum(1)).astype(np.float64)
    return np.divide(2 * np.diag(matrix), size, out=np.full(len(matrix), np.nan), where=size > 0)


def kappa_interval(blocks: Sequence[npt.NDArray[np.integer]], seed: int = 0, draws: int = 500) -> tuple[float, float]:
    """95 % interval of kappa from a bootstrap over spatial blocks (one confusion matrix each)."""
    stack = np.stack(list(blocks))
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(stack), size=(draws, len(stack)))
    values = np.array([kappa(stack[p].sum(0)) for p in picks])
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def summary(matrix: npt.NDArray[np.integer], class_names: Sequence[str]) -> dict[str, Any]:
    """The metrics record used in ``report.json`` and by ``rsedge evaluate``; absent classes have IoU ``None``."""
    per_class = iou(matrix)
    present = per_class[~np.isnan(per_class)]
    return {
        "kappa": kappa(matrix),
        "accuracy": accuracy(matrix),
        "miou": float(present.mean()) if len(present) else 0.0,
        "iou": {n: (None if np.isnan(v) else float(v)) for n, v in zip(class_names, per_class, strict=True)},
        "confusion": matrix.tolist(),
        "n": int(matrix.sum()),
    }
