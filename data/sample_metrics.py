"""How vectors told of samples do: against labels, and against another network's answers.

Four kinds of output: ``classes`` (logits, one class is right), ``labels`` (a logit per label, each right or wrong by itself; one
logit is a yes-or-no question), ``values`` (numbers) and ``embedding``. A fifth, ``boxes``, is judged by
:mod:`rsedge.data.box_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics import confusion_matrix, f1, kappa_interval, summary

Kind = Literal["classes", "labels", "values", "embedding", "boxes"]
Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.generic]


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
    if not len(found):
        return 1.0
    if kind == "embedding":
        return float(np.clip(cosines(found, reference).mean(), 0, 1))
    if kind == "values":
        return max(0.0, r2(found, reference))
    return float((decisions(kind, found) == decisions(kind, reference)).mean())


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


def r2(found: Vectors, truth: Vectors) -> float:
    """Share of the variance explained, pooled over columns (Wright 1921); 0 where there is none to explain."""
    truth = truth.astype(np.float64)
    total = ((truth - truth.mean(0)) ** 2).sum()
    return float(1 - ((found - truth) ** 2).sum() / total) if total else 0.0


def top1(queries: Vectors, gallery: Vectors, reference_gallery: Vectors) -> float:
    """Share of queries whose nearest entry (cosine) is the same one in both galleries, each (M, D) of the same M entries."""
    q, a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
               for x in (queries, gallery, reference_gallery))  # fmt: skip
    same = [((part @ a.T).argmax(1) == (part @ b.T).argmax(1)).sum() for part in np.array_split(q, -(-len(q) // 512))]
    return float(np.sum(same) / len(q))


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
        labels: as in :class:`rsedge.data.samples.Samples`; metrics other than of embeddings need them.
        groups: for the interval of kappa (bootstrap over groups).

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
    if kind == "classes":
        return _of_classes(found, labels, names, groups)
    truth, told = _as_columns(labels, found), decisions(kind, found)
    known = truth >= 0
    record = {"accuracy": float((truth == told)[known].mean()), "f1": _f1(truth, told, known), "n": len(found)}
    if found.shape[1] == 1:
        table = confusion_matrix(truth[:, 0].astype(np.int64), told[:, 0], 2, None)
        record |= {k: v for k, v in summary(table, ("none", names[0])).items() if k in ("kappa", "confusion", "n")}
    return record


def _of_classes(found: Vectors, labels: Labels, names: Sequence[str], groups: npt.NDArray[np.str_]) -> dict[str, Any]:
    if labels.ndim != 1:
        raise RequestError(f"data.samples: labels {labels.shape} for outputs {found.shape}: one class each is needed")
    told, truth = decisions("classes", found), labels.astype(np.int64)
    tables = [confusion_matrix(truth[groups == g], told[groups == g], len(names), None) for g in np.unique(groups)]
    total = np.sum(tables, axis=0)
    counted = [t for t in tables if t.any()]
    interval = kappa_interval(counted) if len(counted) > 1 else None
    return summary(total, names) | {
        "f1": float(np.nanmean(f1(total))) if total.any() else 0.0,
        "kappa_interval": list(interval) if interval else None,
    }


def _as_columns(labels: Labels, found: Vectors) -> npt.NDArray[Any]:
    columns = labels[:, None] if labels.ndim == 1 else labels
    if columns.shape != found.shape:
        raise RequestError(f"data.samples: labels {labels.shape} do not fit outputs {found.shape}")
    return columns


def _f1(truth: npt.NDArray[Any], told: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> float:
    """F1 (van Rijsbergen 1979) over all labels at once."""
    hits = ((truth == 1) & (told == 1) & known).sum()
    size = ((truth == 1) & known).sum() + ((told == 1) & known).sum()
    return float(2 * hits / size) if size else 0.0
