"""Linear probes: what a frozen encoder's vectors say of labels, as the head of a classifier or regressor.

The head is fitted in closed form or to convergence, without passes through the encoder: multinomial or binary logistic regression
for classes and labels, ridge regression for values, on standardised vectors. How strongly weights are held down is chosen by
likelihood (values: squared error) on groups left out; groups are never split. The standardisation becomes part of the head.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.metrics.samples import Kind
from rsedge.models.families.probe import Probe, pooled
from rsedge.models.outside.loading import weight_count
from rsedge.models.teachers import Teacher

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.generic]
PENALTIES = tuple(10.0**power for power in range(-3, 5))
"""Candidates: weight of half the squared norm of a column beside the summed loss of all samples."""
PARTS = 5
"""Groups are left out in so many parts."""


@dataclass(frozen=True)
class LinearHead:
    """``weight`` (K, D) and ``bias`` (K,) on vectors as the encoder gives them, and how they were found.

    Attributes:
        scores: penalty -> mean log-likelihood, or negative squared error, on groups left out; per output where they are fitted
            one by one.
    """

    weight: Vectors
    bias: Vectors
    penalties: tuple[float, ...]
    scores: tuple[dict[float, float], ...]


def probed(teacher: Teacher, classes: Sequence[str], task: Literal["classification", "regression"]) -> Teacher:
    """The teacher with an empty head (zeros) for ``classes``, to be filled by :func:`set_head`.

    Raises:
        RequestError: it is no teacher for embeddings.
    """
    row = teacher.spec
    if row.task != "embedding":
        raise RequestError(f"teacher.probe: '{row.name}' is a teacher for {row.task}; a probe goes on embeddings")
    with torch.inference_mode():
        features = pooled(teacher(torch.zeros(1, *row.input_spec.shape))).shape[1]
    net = Probe(teacher.net, features, len(classes), row.family)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    arch = {**teacher.arch, "probed": row.family, "features": features, "outputs": len(classes)}
    changes = {
        "family": "probe", "task": task, "classes": tuple(classes), "arch": arch, "params": weight_count(net),
        "taps": tuple(tap.replace("net.", "net.encoder.", 1) for tap in row.taps),
    }  # fmt: skip
    return Teacher(net, row.model_copy(update=changes), arch).eval().requires_grad_(False)


def probe_of(teacher: Teacher) -> Probe:
    """The encoder and head that :func:`probed` made of a teacher.

    Raises:
        TypeError: it made no such thing of this one, which is a mistake in our code.
    """
    if not isinstance(teacher.net, Probe):
        raise TypeError(f"teacher '{teacher.spec.name}' is no probe")
    return teacher.net


def set_head(teacher: Teacher, head: LinearHead) -> None:
    """Fills the head of a probed teacher, in place."""
    state = {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
    probe_of(teacher).head.load_state_dict(state)


def fit_head(
    vectors: Vectors,
    labels: Labels,
    kind: Kind,
    classes: Sequence[str],
    groups: npt.NDArray[np.str_],
    on_fit: Callable[[int, int], None] | None = None,
) -> LinearHead:
    """The linear head that tells ``labels`` from ``vectors`` (N, D): one row for each of ``classes``.

    One class is a yes or no, above 0 for labels of 1. Two are told apart as that one is: the difference of their logits is its.

    Args:
        labels: as in :class:`rsedge.data.samples.samples.Samples`; unknown ones (-1; NaN for values) are left out.
        kind: ``classes``, ``labels`` or ``values``.
        groups: (N,) what must not be split between fitting and judging a penalty.
        on_fit: is told how many penalties of how many are judged.

    Raises:
        RequestError: labels do not fit the outputs, a class has no sample, or all samples are one group.
        MissingCapability: scikit-learn is not installed.
    """
    threadpoolctl = _required("threadpoolctl")
    columns = _columns(labels, kind, classes)
    total, done = len(columns) * len(PENALTIES), itertools.count(1)
    judged = (lambda: on_fit(next(done), total)) if on_fit else (lambda: None)
    with threadpoolctl.threadpool_limits(1):  # several take many times longer for matrices so narrow
        fitted = [_fit_column(vectors, column, kind, groups, judged) for column in columns]
    weight, bias = (np.ascontiguousarray(np.concatenate([f[i] for f in fitted]), np.float32) for i in (0, 1))
    return LinearHead(weight, bias, tuple(f[2] for f in fitted), tuple(f[3] for f in fitted))


def _columns(labels: Labels, kind: Kind, classes: Sequence[str]) -> list[npt.NDArray[Any]]:
    """One array of targets per fit: all classes in one, each label or value by itself; unknown is NaN."""
    outputs = len(classes)
    table = labels.astype(np.float64)
    if kind == "classes":
        if labels.ndim != 1:
            raise RequestError(f"teacher.probe: labels {labels.shape} for {outputs} classes: one class each is needed")
        table[table < 0] = np.nan
        return [_checked_classes(table, classes)]
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.shape[1] != outputs:
        raise RequestError(f"teacher.probe: labels {labels.shape} do not fit {outputs} teacher.classes")
    if kind == "labels":
        table[table < 0] = np.nan
        for name, column in zip(classes, table.T, strict=True):
            if set(np.unique(column[~np.isnan(column)])) != {0.0, 1.0}:
                raise RequestError(
                    f"teacher.probe: '{name}' needs training samples with and without it, as ones and zeros"
                )
    return list(table.T)


def _checked_classes(column: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[Any]:
    found = set(np.unique(column[~np.isnan(column)]).astype(int))
    wanted = set(range(len(classes)))
    if found - wanted:
        raise RequestError(
            f"teacher.probe: samples of class {max(found)}, teacher.classes names {len(classes)}; name all"
        )
    if wanted - found:
        names = ", ".join(classes[i] for i in sorted(wanted - found))
        raise RequestError(f"teacher.probe: no training sample of {names}; give some, or leave the class out")
    return column


def _fit_column(
    vectors: Vectors, y: npt.NDArray[Any], kind: Kind, groups: npt.NDArray[np.str_], judged: Callable[[], None]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float, dict[float, float]]:
    """Weights (k, D), biases (k,), the chosen penalty, and the scores of all."""
    known = ~np.isnan(y)
    x, y, groups = vectors[known].astype(np.float64), y[known], groups[known]
    if len(np.unique(groups)) < 2:
        raise RequestError(
            "teacher.probe: all labelled samples are one group, so no penalty can be judged; give more groups"
        )
    mean, std = x.mean(0), x.std(0)
    std[std <= 1e-6 * np.abs(x).max(0, initial=1e-12)] = 1.0  # constant, as far as float32 tells
    x = (x - mean) / std
    scores = {}
    for penalty in PENALTIES:
        scores[penalty] = _left_out(x, y, kind, groups, penalty)
        judged()
    best = max(scores, key=lambda penalty: scores[penalty])
    model = _estimator(kind, best).fit(x, y)
    weight = np.atleast_2d(model.coef_) / std
    bias = np.atleast_1d(model.intercept_) - weight @ mean
    if (
        kind == "classes" and len(weight) == 1
    ):  # of two classes there is one column: the second's logit over the first's
        weight, bias = (np.concatenate([-one, one]) / 2 for one in (weight, bias))
    return weight, bias, best, scores


def _left_out(
    x: npt.NDArray[np.float64], y: npt.NDArray[Any], kind: Kind, groups: npt.NDArray[np.str_], penalty: float
) -> float:
    """Mean score per sample on the groups that a fit did not see."""
    from sklearn.model_selection import GroupKFold

    parts = GroupKFold(min(PARTS, len(np.unique(groups))))
    total = 0.0
    for seen, judged in parts.split(x, y, groups):
        if kind != "values" and len(np.unique(y[seen])) < 2:
            raise RequestError(
                "teacher.probe: all samples of a class are in one group, so no penalty can be judged; give more"
            )
        model = _estimator(kind, penalty).fit(x[seen], y[seen])
        total += _score(model, x[judged], y[judged], kind)
    return total / len(y)


def _score(model: Any, x: npt.NDArray[np.float64], y: npt.NDArray[Any], kind: Kind) -> float:
    """Summed log-likelihood; of values, the negative sum of squared errors."""
    if kind == "values":
        return -float(((model.predict(x) - y) ** 2).sum())
    logs = np.log(np.maximum(model.predict_proba(x), 1e-6))
    column = np.searchsorted(model.classes_, y).clip(max=len(model.classes_) - 1)
    found = np.where(model.classes_[column] == y, logs[np.arange(len(y)), column], np.log(1e-6))
    return float(found.sum())


def _estimator(kind: Kind, penalty: float) -> Any:
    linear = _required("sklearn.linear_model")
    return linear.Ridge(alpha=penalty) if kind == "values" else linear.LogisticRegression(C=1 / penalty, max_iter=5000)


def _required(module: str) -> Any:
    """scikit-learn, or what comes with it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra("sklearn", "compress", "a linear probe") from error
