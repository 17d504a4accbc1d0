"""How vectors told of samples do: against labels, and against another network's answers.

Four kinds of output: ``classes`` (logits, one class is right), ``labels`` (a logit per label, each right or wrong by itself; one
logit is a yes-or-no question), ``values`` (numbers) and ``embedding``. Two more, ``boxes`` and
``image``, are judged by :mod:`rsedge.data.metrics.boxes` and :mod:`rsedge.data.metrics.images`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.confusion import Confusion, block_tables
from rsedge.data.metrics.statistics import Floats, Statistic, of_sums, ratio, summed, units_of

Kind = Literal["classes", "labels", "values", "embedding", "boxes", "image"]
Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.generic]
UNKNOWN = -1
"""A label that is not known; it does not count."""


def kind_of(task: str, outputs: int, labels: Labels | None) -> Kind:
    """The kind of a task's outputs, given their number and the labels if there are any."""
    if task == "regression":
        return "values"
    if task in ("embedding", "features"):
        return "embedding"
    return "labels" if outputs == 1 or (labels is not None and labels.ndim == 2) else "classes"


def decisions(kind: Kind, found: Vectors) -> npt.NDArray[np.int64]:
    """What is decided: (N,) class numbers for ``classes``, (N, K) zeros and ones for ``labels``."""
    return found.argmax(1).astype(np.int64) if kind == "classes" else (found > 0).astype(np.int64)


@dataclass(frozen=True)
class Likeness(Comparison):
    """A network's answers against another's.

    Attributes:
        found, reference: (N, K); of ``teacher classes`` and ``teacher labels`` what is decided, (N, ...), else numbers.
        groups: (N,) what each answer belongs to, which the bootstrap draws.
        seen: as the decisions; those that count. None: all.
    """

    found: npt.NDArray[Any]
    reference: npt.NDArray[Any]
    groups: npt.NDArray[Any]
    seen: npt.NDArray[np.bool_] | None = None

    @cached_property
    def alike(self) -> npt.NDArray[np.float64]:
        """Of vectors, or several per answer (N, T, D): cosines, (N, T)."""
        width = self.found.shape[-1]
        pairs = cosines(self.found.reshape(-1, width), self.reference.reshape(-1, width))
        return pairs.reshape(len(self.found), -1)

    @property
    def details(self) -> dict[str, Any]:
        """Of vectors: ``cosine_p01`` (the lowest hundredth), ``cosine_min`` and ``n`` (answers)."""
        if self.kind not in ("teacher vectors", "teacher tokens"):
            return {}
        lowest, least = np.quantile(self.alike, 0.01), self.alike.min()
        return {"cosine_p01": float(lowest), "cosine_min": float(least), "n": len(self.found)}


def likeness_of(kind: Kind, found: Vectors, reference: Vectors, groups: npt.NDArray[Any]) -> Likeness:
    """What :func:`agreement` takes, of outputs of a kind."""
    if kind == "classes":
        return Likeness("teacher classes", decisions(kind, found), decisions(kind, reference), groups)
    if kind == "labels":
        return Likeness("teacher labels", decisions(kind, found), decisions(kind, reference), groups)
    return Likeness("teacher values" if kind == "values" else "teacher vectors", found, reference, groups)


def agreement(kind: Kind, found: Vectors, reference: Vectors) -> float:
    """Share of equal decisions; mean cosine for embeddings, share of explained variance for values (both at least 0)."""
    of = {"values": agreement_of_values, "embedding": agreement_of_vectors}.get(kind, agreement_of_decisions)
    value = of(likeness_of(kind, found, reference, np.zeros(len(found)))).value
    return 1.0 if value is None else value


def agreement_of_decisions(answers: Likeness) -> Statistic:
    """Share of equal decisions, of pixels, samples or labels, by units."""
    unit, units = units_of(answers.groups)
    equal = answers.found == answers.reference
    seen = np.ones(equal.shape, bool) if answers.seen is None else answers.seen
    rows, counted = ((x.reshape(len(x), math.prod(x.shape[1:])).sum(1)) for x in (equal & seen, seen))
    return ratio(summed(rows, unit, units), summed(counted, unit, units))


def agreement_of_values(answers: Likeness) -> Statistic:
    """Share of variance explained, at least 0, by units; values without variance agree where they are equal."""
    sums = _r2_sums(answers.found, answers.reference, *units_of(answers.groups))
    return of_sums(sums, lambda s: np.clip(np.nan_to_num(_r2s(s), nan=0.0), 0, 1), 0.0, 1.0)


def agreement_of_vectors(answers: Likeness) -> Statistic:
    """Mean cosine, at least 0, by units."""
    mean = cosine_statistic(answers)
    return Statistic(mean.units, lambda counts: np.clip(mean.of(counts), 0, 1), 0.0, 1.0)


def cosine_statistic(answers: Likeness) -> Statistic:
    """Mean cosine by units."""
    unit, units = units_of(answers.groups)
    number = np.full(len(answers.alike), answers.alike.shape[1])
    return ratio(summed(answers.alike.sum(1), unit, units), summed(number, unit, units), -1.0, 1.0)


def top1_statistic(answers: Likeness) -> Statistic:
    """Share of the reference's answers whose nearest one is the same among both networks', by units."""
    unit, units = units_of(answers.groups)
    same = same_nearest(answers.reference, answers.found, answers.reference)
    return ratio(summed(same, unit, units), summed(np.ones(len(same)), unit, units))


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


def same_nearest(queries: Vectors, gallery: Vectors, reference_gallery: Vectors) -> npt.NDArray[np.bool_]:
    """Whether each query's nearest entry (cosine) is the same one in both galleries, (N,)."""
    q, a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
               for x in (queries, gallery, reference_gallery))  # fmt: skip
    parts = np.array_split(q, max(1, -(-len(q) // 512)))
    return np.concatenate([(part @ a.T).argmax(1) == (part @ b.T).argmax(1) for part in parts])


def sample_comparisons(
    kind: Kind,
    found: Vectors,
    reference: Vectors,
    labels: Labels | None,
    names: Sequence[str],
    groups: npt.NDArray[np.str_],
) -> tuple[Comparison, ...]:
    """What one network's answers ``found`` (N, K) are judged by.

    Args:
        reference: the teacher's answers.
        labels: as in :class:`rsedge.data.samples.samples.Samples`; embeddings have none.
        names: of the classes.
        groups: (N,) what each answer belongs to, which the bootstrap draws.

    Raises:
        RequestError: labels do not fit the outputs.
    """
    alike = likeness_of(kind, found, reference, groups)
    if labels is None or kind == "embedding":
        return (alike,)
    if kind == "values":
        return alike, ValueComparison("values", found, _as_columns(labels, found), groups)
    unit, units = units_of(groups)
    if kind == "classes":
        return alike, Confusion("classes", _class_tables(found, labels, len(names), unit, units), names)
    hits = LabelComparison("labels", decisions("labels", found), _zeros_and_ones(labels, found), groups)
    if found.shape[1] > 1:
        return alike, hits
    table = block_tables(hits.truth[:, 0], hits.found[:, 0], unit, units, 2, UNKNOWN)
    return alike, hits, Confusion("yes or no", table, ("none", names[0]))


@dataclass(frozen=True)
class ValueComparison(Comparison):
    """Numbers against the true ones, (N, K) each; ``groups`` (N,) are drawn."""

    found: Vectors
    truth: npt.NDArray[Any]
    groups: npt.NDArray[Any]

    @property
    def details(self) -> dict[str, Any]:
        """``mae``, the mean error's size, and ``n`` (samples)."""
        return {"mae": float(np.abs(self.found - self.truth.astype(np.float64)).mean()), "n": len(self.found)}


def rmse_statistic(values: ValueComparison) -> Statistic:
    """Root of the mean squared error."""
    unit, units = units_of(values.groups)
    error = ((values.found.astype(np.float64) - values.truth.astype(np.float64)) ** 2).mean(1)
    mean = ratio(summed(error, unit, units), summed(np.ones(len(error)), unit, units), 0.0, np.inf)
    return Statistic(units, lambda counts: np.sqrt(mean.of(counts)), 0.0)


def r2_statistic(values: ValueComparison) -> Statistic:
    """Share of the variance explained, pooled over columns (Wright 1921)."""
    sums = _r2_sums(values.found, values.truth, *units_of(values.groups))
    return of_sums(sums, _r2s, high=1.0, undefined="the labels do not vary")


@dataclass(frozen=True)
class LabelComparison(Comparison):
    """Several labels a sample: decided and true, (N, K) zeros and ones, true ones :data:`UNKNOWN` where unknown."""

    found: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    groups: npt.NDArray[Any]

    @property
    def details(self) -> dict[str, Any]:
        """``n`` (samples)."""
        return {"n": len(self.found)}

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return self.truth != UNKNOWN


def accuracy_of_labels(labels: LabelComparison) -> Statistic:
    """Share of right labels."""
    unit, units = units_of(labels.groups)
    right = ((labels.truth == labels.found) & labels.known).sum(1)
    return ratio(summed(right, unit, units), summed(labels.known.sum(1), unit, units))


def f1_of_labels(labels: LabelComparison) -> Statistic:
    """F1 (van Rijsbergen 1979) over all labels at once."""
    unit, units = units_of(labels.groups)
    real, claimed = ((x == 1) & labels.known for x in (labels.truth, labels.found))
    hits, size = (real & claimed).sum(1), (real.astype(int) + claimed).sum(1)
    return ratio(summed(2 * hits, unit, units), summed(size, unit, units))


def _class_tables(
    found: Vectors, labels: Labels, classes: int, unit: npt.NDArray[np.intp], units: int
) -> npt.NDArray[np.int64]:
    if labels.ndim != 1:
        raise RequestError(f"data.samples: labels {labels.shape} for outputs {found.shape}: one class each is needed")
    return block_tables(labels.astype(np.int64), decisions("classes", found), unit, units, classes, UNKNOWN)


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
