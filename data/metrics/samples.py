"""How vectors told of samples do: against labels, and against another network's answers.

Four kinds of output: ``classes`` (logits, one class is right), ``labels`` (a logit per label, each right or wrong by itself; one
logit is a yes-or-no question), ``values`` (numbers) and ``embedding``. Two more, ``boxes`` and
``image``, are judged by :mod:`rsedge.data.metrics.boxes` and :mod:`rsedge.data.metrics.images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.confusion import (
    block_tables,
    class_mean,
    defined,
    f1,
    summary,
    summary_of_blocks,
    table_statistics,
)
from rsedge.data.metrics.evidence import Floats, Statistic, of_sums, ratio, summed, units_of

Kind = Literal["classes", "labels", "values", "embedding", "boxes", "image"]
Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.generic]
UNKNOWN = -1
"""A label that is not known; it does not count."""


def kind_of(task: str, outputs: int, labels: Labels | None) -> Kind:
    """The kind of a task's outputs, given their number and the labels if there are any."""
    if task == "regression":
        return "values"
    if task == "embedding":
        return "embedding"
    return "labels" if outputs == 1 or (labels is not None and labels.ndim == 2) else "classes"


def decisions(kind: Kind, found: Vectors) -> npt.NDArray[np.int64]:
    """What is decided: (N,) class numbers for ``classes``, (N, K) zeros and ones for ``labels``."""
    return found.argmax(1).astype(np.int64) if kind == "classes" else (found > 0).astype(np.int64)


def agreement(kind: Kind, found: Vectors, reference: Vectors) -> float:
    """Share of equal decisions; mean cosine for embeddings, share of explained variance for values (both at least 0)."""
    value = agreement_statistic(kind, found, reference, np.arange(len(found)), len(found)).value
    return 1.0 if value is None else value


def agreement_statistic(
    kind: Kind, found: Vectors, reference: Vectors, unit: npt.NDArray[np.intp], units: int
) -> Statistic:
    """:func:`agreement` by units; ``unit`` (N,) numbers each sample's. Values without variance agree where they are equal."""
    if kind == "values":
        sums = _r2_sums(found, reference, unit, units)
        return of_sums(sums, lambda s: np.clip(np.nan_to_num(_r2s(s), nan=0.0), 0, 1), 0.0, 1.0)
    if kind == "embedding":
        same = cosines(found, reference)
        number = np.ones(len(found))
        return of_sums(
            np.stack([summed(same, unit, units), summed(number, unit, units)], 1),
            lambda s: np.clip(np.divide(s[:, 0], s[:, 1], out=np.full(len(s), np.nan), where=s[:, 1] > 0), 0, 1), 0.0, 1.0,
        )  # fmt: skip
    equal = (decisions(kind, found) == decisions(kind, reference)).reshape(len(found), -1)
    number = np.full(len(found), equal.shape[1] if len(found) else 0)
    return ratio(summed(equal.sum(1), unit, units), summed(number, unit, units))


def likeness(kind: Kind, found: Vectors, reference: Vectors) -> float:
    """As :func:`agreement`, but over probabilities (one less the mean total variation), so that small changes show."""
    if kind in ("embedding", "values") or not len(found):
        return agreement(kind, found, reference)
    p, q = (_probabilities(kind, x) for x in (found, reference))
    gap = np.abs(p - q)
    return float(1 - (gap.sum(1) / 2 if kind == "classes" else gap.mean(1)).mean())


def _probabilities(kind: Kind, logits: Vectors) -> npt.NDArray[np.float64]:
    x = logits.astype(np.float64)
    if kind == "labels":
        return np.asarray(0.5 * (1 + np.tanh(x / 2)))
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def cosines(found: Vectors, reference: Vectors) -> npt.NDArray[np.float64]:
    """Cosine of each pair of rows, (N,)."""
    a, b = found.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / np.maximum(norms, 1e-12))


def r2(found: Vectors, truth: Vectors) -> float | None:
    """Share of the variance explained, pooled over columns (Wright 1921); None where there is none to explain."""
    one = np.zeros(len(found), dtype=np.intp)
    return defined(_r2s(_r2_sums(found, truth, one, 1))[0])


def _r2_sums(found: Vectors, truth: Vectors, unit: npt.NDArray[np.intp], units: int) -> Floats:
    """By unit: squared error, number, sums and squared sums of each column of the truth, (units, 2 + 2 K)."""
    real = truth.astype(np.float64)
    if len(real):
        real = real - real.mean(0)  # About zero, so that sums of squares lose no digits.
    error = ((found.astype(np.float64) - truth.astype(np.float64)) ** 2).sum(1, keepdims=True)
    return summed(np.concatenate([error, np.ones((len(real), 1)), real, real**2], 1), unit, units)


def _r2s(sums: Floats) -> Floats:
    columns = (sums.shape[1] - 2) // 2
    number = np.maximum(sums[:, 1:2], 1)
    total = (sums[:, 2 + columns :] - sums[:, 2 : 2 + columns] ** 2 / number).sum(1)
    return np.asarray(1 - np.divide(sums[:, 0], total, out=np.full(len(sums), np.nan), where=total > 1e-12))


def top1(queries: Vectors, gallery: Vectors, reference_gallery: Vectors) -> float:
    """Share of queries whose nearest entry (cosine) is the same one in both galleries, each (M, D) of the same M entries."""
    return float(same_nearest(queries, gallery, reference_gallery).mean())


def same_nearest(queries: Vectors, gallery: Vectors, reference_gallery: Vectors) -> npt.NDArray[np.bool_]:
    """Whether each query's nearest entry (cosine) is the same one in both galleries, (N,)."""
    q, a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
               for x in (queries, gallery, reference_gallery))  # fmt: skip
    parts = np.array_split(q, max(1, -(-len(q) // 512)))
    return np.concatenate([(part @ a.T).argmax(1) == (part @ b.T).argmax(1) for part in parts])


def sample_metrics(
    kind: Kind,
    found: Vectors,
    reference: Vectors,
    labels: Labels | None,
    names: Sequence[str],
    groups: npt.NDArray[np.str_],
) -> dict[str, Any]:
    """The record of one network's answers ``found`` (N, K).

    Args:
        reference: the teacher's answers, for embeddings.
        labels: as in :class:`rsedge.data.samples.samples.Samples`; metrics other than of embeddings need them.
        groups: what each answer belongs to, for the interval of kappa (bootstrap over them).

    Raises:
        RequestError: labels do not fit the outputs.
    """
    if kind == "embedding":
        alike = cosines(found, reference)
        return {"cosine": float(alike.mean()), "cosine_p01": float(np.quantile(alike, 0.01)),
                "cosine_min": float(alike.min()), "top1": top1(reference, found, reference), "n": len(found)}  # fmt: skip
    if labels is None:
        return {}
    if kind == "values":
        truth = _as_columns(labels, found).astype(np.float64)
        error = float(np.sqrt(((found - truth) ** 2).mean()))
        return {"rmse": error, "mae": float(np.abs(found - truth).mean()), "r2": r2(found, truth.astype(np.float32)),
                "n": len(found)}  # fmt: skip
    unit, units = units_of(groups)
    if kind == "classes":
        tables = _class_tables(found, labels, len(names), unit, units)
        return summary_of_blocks(tables, names) | {"f1": defined(class_mean(f1(tables.sum(0))))}
    statistics = _label_statistics(found, labels, unit, units)
    record = {"accuracy": statistics["accuracy"].value, "f1": statistics["f1"].value, "n": len(found)}
    if found.shape[1] == 1:
        table = _yes_or_no(found, labels, unit, units).sum(0)
        record |= {k: v for k, v in summary(table, ("none", names[0])).items() if k in ("kappa", "confusion", "n")}
    return record


def sample_statistics(
    kind: Kind, found: Vectors, reference: Vectors, labels: Labels | None, classes: int, groups: npt.NDArray[np.str_]
) -> dict[str, Statistic]:
    """What :func:`sample_metrics` gives and :func:`agreement`, by groups, for their intervals."""
    unit, units = units_of(groups)
    number = summed(np.ones(len(found)), unit, units)
    statistics = {"agreement": agreement_statistic(kind, found, reference, unit, units)}
    if kind == "embedding":
        alike, same = cosines(found, reference), same_nearest(reference, found, reference)
        return statistics | {
            "cosine": ratio(summed(alike, unit, units), number, -1.0, 1.0),
            "top1": ratio(summed(same, unit, units), number),
        }
    if labels is None:
        return statistics
    if kind == "values":
        truth = _as_columns(labels, found).astype(np.float32)
        error = ((found.astype(np.float64) - truth.astype(np.float64)) ** 2).mean(1)
        mean = ratio(summed(error, unit, units), number, 0.0, np.inf)
        return statistics | {
            "rmse": Statistic(units, lambda counts: np.sqrt(mean.of(counts)), 0.0),
            "r2": of_sums(_r2_sums(found, truth, unit, units), _r2s, high=1.0, undefined="the labels do not vary"),
        }
    if kind == "classes":
        return statistics | table_statistics(_class_tables(found, labels, classes, unit, units), class_mean)
    statistics |= _label_statistics(found, labels, unit, units)
    if found.shape[1] == 1:
        statistics["kappa"] = table_statistics(_yes_or_no(found, labels, unit, units))["kappa"]
    return statistics


def _class_tables(
    found: Vectors, labels: Labels, classes: int, unit: npt.NDArray[np.intp], units: int
) -> npt.NDArray[np.int64]:
    if labels.ndim != 1:
        raise RequestError(f"data.samples: labels {labels.shape} for outputs {found.shape}: one class each is needed")
    return block_tables(labels.astype(np.int64), decisions("classes", found), unit, units, classes, UNKNOWN)


def _yes_or_no(found: Vectors, labels: Labels, unit: npt.NDArray[np.intp], units: int) -> npt.NDArray[np.int64]:
    truth = _zeros_and_ones(labels, found)[:, 0]
    return block_tables(truth, decisions("labels", found)[:, 0], unit, units, 2, UNKNOWN)


def _label_statistics(found: Vectors, labels: Labels, unit: npt.NDArray[np.intp], units: int) -> dict[str, Statistic]:
    """Accuracy and F1 (van Rijsbergen 1979) over all labels at once."""
    truth, said = _zeros_and_ones(labels, found), decisions("labels", found)
    known = truth != UNKNOWN
    right, real, claimed = ((truth == said) & known, (truth == 1) & known, (said == 1) & known)
    right, hits, size = (x.sum(1) for x in (right, real & claimed, real.astype(int) + claimed))
    return {
        "accuracy": ratio(summed(right, unit, units), summed(known.sum(1), unit, units)),
        "f1": ratio(summed(2 * hits, unit, units), summed(size, unit, units)),
    }


def _zeros_and_ones(labels: Labels, found: Vectors) -> npt.NDArray[np.int64]:
    """(N, K) zeros and ones, :data:`UNKNOWN` where unknown or NaN."""
    columns = _as_columns(labels, found).astype(np.float64)
    columns = np.where(np.isnan(columns), UNKNOWN, columns)
    strange = columns[~np.isin(columns, (UNKNOWN, 0, 1))]
    if strange.size:
        raise RequestError(f"data.samples: labels are 0, 1 or {UNKNOWN} (unknown); found {strange[0]:g}")
    return columns.astype(np.int64)


def _as_columns(labels: Labels, found: Vectors) -> npt.NDArray[Any]:
    columns = labels[:, None] if labels.ndim == 1 else labels
    if columns.shape != found.shape:
        raise RequestError(f"data.samples: labels {labels.shape} do not fit outputs {found.shape}")
    return columns
