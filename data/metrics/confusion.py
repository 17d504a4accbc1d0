"""Accuracy of dense and global class predictions, all from one confusion matrix.

Sources: Cohen (1960) for kappa; Jaccard index per class (IoU); van Rijsbergen (1979) for F1. Functions over tables take stacks
(..., classes, classes) and give NaN where a figure is not defined; records have None there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Floats, Statistic, estimate, of_sums

IntArray = npt.NDArray[np.integer]
Tables = npt.NDArray[np.number]
NO_PREDICTION = 255
NAMED_VALUES = 10
UNDEFINED_KAPPA = "labels and predictions are all of one class, or there are none: kappa is not defined"


def confusion_matrix(
    labels: IntArray, predictions: IntArray, classes: int, ignore: int | None = 255
) -> npt.NDArray[np.int64]:
    """Counts, shape (classes, classes): rows are labels, columns are predictions.

    Labels of ``ignore`` do not count, nor do pixels for which there is no prediction (255 = nodata).

    Raises:
        RequestError: another value that is no class, on either side.
    """
    one = np.zeros(np.asarray(labels).size, dtype=np.intp)
    return block_tables(np.ravel(labels), np.ravel(predictions), one, 1, classes, ignore)[0]


def block_tables(
    labels: IntArray,
    predictions: IntArray,
    unit: npt.NDArray[np.intp],
    units: int,
    classes: int,
    ignore: int | None = 255,
) -> npt.NDArray[np.int64]:
    """As :func:`confusion_matrix`, for each unit by itself: (units, classes, classes); ``unit`` numbers each pixel's."""
    labels, predictions, unit = np.asarray(labels).ravel(), np.asarray(predictions).ravel(), unit.ravel()
    keep = np.ones(len(labels), dtype=bool) if ignore is None else labels != ignore
    _refuse_strange("labels", labels[keep], classes)
    keep &= predictions != NO_PREDICTION
    _refuse_strange("predictions", predictions[keep], classes)
    index = (unit[keep] * classes + labels[keep].astype(np.int64)) * classes + predictions[keep].astype(np.int64)
    counts = np.bincount(index, minlength=units * classes * classes)
    return counts.reshape(units, classes, classes).astype(np.int64)


def _refuse_strange(what: str, values: IntArray, classes: int) -> None:
    strange = values[(values < 0) | (values >= classes)]
    if strange.size:
        found, counts = np.unique(strange, return_counts=True)
        named = ", ".join(f"{v} ({c} times)" for v, c in zip(found[:NAMED_VALUES], counts, strict=False))
        more = ", ..." if len(found) > NAMED_VALUES else ""
        raise RequestError(f"{what} hold values that are no class (0 to {classes - 1}): {named}{more}")


def _share(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Floats:
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def kappas(tables: Tables) -> Floats:
    """Cohen's kappa; NaN where chance alone would agree on everything (one class only on both sides) or nothing counts."""
    tables = np.asarray(tables, dtype=np.float64)
    total = tables.sum((-2, -1))
    observed = _share(np.trace(tables, axis1=-2, axis2=-1), total)
    expected = _share((tables.sum(-2) * tables.sum(-1)).sum(-1), total**2)
    return np.where(expected < 1 - 1e-12, _share(observed - expected, 1 - expected), np.nan)


def accuracies(tables: Tables) -> Floats:
    """Share of pixels whose prediction equals the label; NaN where nothing counts."""
    return _share(np.trace(tables, axis1=-2, axis2=-1), np.asarray(tables).sum((-2, -1)))


def iou(tables: Tables) -> Floats:
    """Intersection over union per class, (..., classes); NaN for a class that occurs on neither side."""
    hit = np.diagonal(tables, axis1=-2, axis2=-1).astype(np.float64)
    return _share(hit, np.asarray(tables).sum(-2) + np.asarray(tables).sum(-1) - hit)


def f1(tables: Tables) -> Floats:
    """F1 per class, (..., classes); NaN for a class that occurs on neither side."""
    hit = np.diagonal(tables, axis1=-2, axis2=-1)
    return _share(2 * hit, np.asarray(tables).sum(-2) + np.asarray(tables).sum(-1))


def class_mean(values: Floats) -> Floats:
    """Mean over the classes that occur; NaN where none does."""
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0).sum(-1), known.sum(-1))


def second_class(values: Floats) -> Floats:
    """Of the second of two classes (what is looked for), else the mean over those that occur."""
    return values[..., 1] if values.shape[-1] == 2 else class_mean(values)


def kappa(matrix: Tables) -> float | None:
    """Cohen's kappa of one table; None where it is not defined."""
    return defined(kappas(matrix))


def accuracy(matrix: Tables) -> float | None:
    """Share of equal pixels of one table; None where nothing counts."""
    return defined(accuracies(matrix))


def map_likeness(found: IntArray, reference: IntArray, classes: int) -> float:
    """Kappa between two class maps; where that is not defined the share on which they agree, 1 where neither sees anything."""
    table = confusion_matrix(reference, found, classes)
    value = kappa(table)
    if value is not None:
        return value
    share = accuracy(table)
    return 1.0 if share is None else share


def defined(value: npt.ArrayLike) -> float | None:
    """A figure for a record: None in place of NaN."""
    number = float(np.asarray(value))
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Confusion(Comparison):
    """Predicted classes against labels, of pixels or of samples.

    Attributes:
        tables: (B, K, K) of the units: rows are labels, columns are predictions.
        names: of the K classes.
    """

    tables: Tables
    names: Sequence[str]

    @cached_property
    def counted(self) -> Tables:
        """The tables of units in which something counts, (n, K, K)."""
        tables = np.asarray(self.tables)
        return tables[tables.any((-2, -1))] if len(tables) else tables

    @property
    def details(self) -> dict[str, Any]:
        """``iou`` by class, ``confusion``, ``n`` (pixels or samples), ``kappa_interval`` (95 %, None with one unit), ``blocks``."""
        matrix, interval = np.asarray(self.tables).sum(0), estimate(kappa_statistic(self)).interval
        return {
            "iou": {n: defined(v) for n, v in zip(self.names, iou(matrix), strict=True)},
            "confusion": matrix.tolist(),
            "n": int(matrix.sum()),
            "kappa_interval": None if interval is None else list(interval),
            "blocks": len(self.counted),
        }


def kappa_statistic(found: Confusion) -> Statistic:
    """Cohen's kappa."""
    return of_sums(found.counted, kappas, -1.0, 1.0, UNDEFINED_KAPPA)


def accuracy_statistic(found: Confusion) -> Statistic:
    """Share of equal pixels or samples."""
    return of_sums(found.counted, accuracies, 0.0, 1.0)


def miou_statistic(found: Confusion) -> Statistic:
    """Mean over classes of intersection over union."""
    return of_sums(found.counted, lambda t: class_mean(iou(t)), 0.0, 1.0)


def f1_of_pixels(found: Confusion) -> Statistic:
    """F1 of the second of two classes (what is looked for), else the mean over classes."""
    return of_sums(found.counted, lambda t: second_class(f1(t)), 0.0, 1.0)


def f1_of_samples(found: Confusion) -> Statistic:
    """Mean over classes of F1."""
    return of_sums(found.counted, lambda t: class_mean(f1(t)), 0.0, 1.0)
