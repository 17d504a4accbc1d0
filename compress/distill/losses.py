"""Losses of outputs, and what all losses share. A loss, the tap it reads and the connector that matches shapes are three names.

Every loss is a mean over views: that of a batch is the mean of what its views give alone. What outputs are scaled by is taken of
the whole training set (:mod:`.statistics`). Losses that are defined over a batch (:mod:`.vector_losses`, one half of :func:`dist`)
say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill.box_loss import box_loss
from rsedge.compress.distill.loss_table import LogitLoss
from rsedge.compress.distill.statistics import OutputStatistics
from rsedge.compress.distill.taps import MAP_AXES

_RAREST = 0.01
_LEAST_VARIANCE = 1e-8
"""Of probabilities: less is no order of classes or answers."""

_LEAST_LENGTH = 1e-4
"""Of a vector: a shorter one has no direction."""


@dataclass(frozen=True)
class Given:
    """What a loss may look at beside the two tensors.

    Attributes:
        kind: what the outputs are; None of a tap.
        statistics: of the teacher's side over the training set, where the loss is scaled by them.
        grid: a detector's cells.
    """

    kind: LogitLoss | None = None
    statistics: OutputStatistics | None = None
    grid: Tensor | None = None

    @property
    def known(self) -> OutputStatistics:
        """The statistics of a loss that is scaled by them."""
        assert self.statistics is not None
        return self.statistics


@dataclass(frozen=True)
class LossChoice:
    """A loss by its name in :data:`.loss_table.LOSSES`, with options that are not the row's own."""

    name: str
    weight: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)


# -- of classes and labels ----------------------------------------------------------------------------------------------


def kl(student: Tensor, teacher: Tensor, given: Given, temperature: float, balance: float) -> Tensor:
    """Kullback-Leibler divergence of softened distributions (Hinton et al. 2015): ``T**2 * sum q * log(q / p)``, mean over places.

    Of several labels that of yes and no, mean over labels. In maps of classes a pixel counts by ``frequency ** -balance`` of its
    teacher class over the training set: rare classes (shadow is 3 % of most scenes) otherwise hardly count.

    Args:
        student, teacher: logits (N, K) or (N, K, H, W).
    """
    if given.kind == "labels":
        return label_kl(student, teacher, temperature)
    log_p = F.log_softmax(student / temperature, dim=1)
    q = F.log_softmax(teacher / temperature, dim=1)
    per_place = (q.exp() * (q - log_p)).sum(1)
    if balance and student.ndim == MAP_AXES:
        per_place = per_place * class_weights(given.known, balance).to(q.device)[q.argmax(1)]
    return per_place.mean() * temperature**2


def class_weights(statistics: OutputStatistics, power: float) -> Tensor:
    """(K,) weights of classes, of mean 1 over the training set; those rarer than one in a hundred count as that frequent."""
    share = torch.tensor(statistics.shares)
    weight = share.clamp(min=_RAREST) ** -power
    return weight / (share * weight).sum()


def label_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened yes-or-no distributions, mean over labels; logits (N, K)."""
    s, t = student / temperature, teacher / temperature
    p = torch.sigmoid(t)
    apart = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return apart.mean() * temperature**2


def dkd(student: Tensor, teacher: Tensor, _given: Given, temperature: float, alpha: float, beta: float) -> Tensor:
    """Decoupled distillation (Zhao et al. 2022): ``alpha`` times the divergence of (target, all others) plus ``beta`` times that of
    the others among themselves, times ``T**2``. The target is the teacher's first class.

    Args:
        student, teacher: logits (N, K) or (N, K, H, W).
    """
    s, t = (rows(x) / temperature for x in (student, teacher))
    target = F.one_hot(t.argmax(1), t.shape[1]).bool()
    log_p, log_q = F.log_softmax(s, 1), F.log_softmax(t, 1)
    binary_p, binary_q = (torch.stack([x[target], _others(x, target).logsumexp(1)], 1) for x in (log_p, log_q))
    target_part = (binary_q.exp() * (binary_q - binary_p)).sum(1).mean()
    among_p, among_q = (F.log_softmax(_others(x, target), 1) for x in (s, t))
    among = (among_q.exp() * (among_q - among_p)).sum(1).mean()
    return (alpha * target_part + beta * among) * temperature**2


def _others(x: Tensor, target: Tensor) -> Tensor:
    """(M, K) without the target of each row: (M, K - 1)."""
    return x[~target].reshape(len(x), -1)


def dist(student: Tensor, teacher: Tensor, _given: Given, temperature: float, beta: float, gamma: float) -> Tensor:
    """One less Pearson's correlation of probabilities (Huang et al. 2022), times ``T**2``: ``beta`` times that of the classes
    within each answer, mean over answers, plus ``gamma`` times that of all answers of the batch within each class, mean over
    classes.

    Args:
        student, teacher: logits (N, K) or (N, K, H, W), whose pixels are answers.
    """
    p, q = (F.softmax(rows(x) / temperature, 1) for x in (student, teacher))
    within_answers = (1 - _pearson(p, q)).mean()
    within_classes = (1 - _pearson(p.T, q.T)).mean()
    return (beta * within_answers + gamma * within_classes) * temperature**2


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    """Of each row."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).mean(1) / ((x * x).mean(1) + _LEAST_VARIANCE).sqrt() / ((y * y).mean(1) + _LEAST_VARIANCE).sqrt()


def rows(x: Tensor) -> Tensor:
    """(N, K) or (N, K, H, W) as answers (M, K)."""
    return x.movedim(1, -1).flatten(0, -2)


# -- of values, vectors and features ------------------------------------------------------------------------------------


def mse(student: Tensor, teacher: Tensor, given: Given) -> Tensor:
    """Mean squared distance, in units that the training set gives, so that outputs of different units can be added.

    ``values`` (N, K): over the variance of a value. ``image`` and ``outputs``, any shape: over the variance of all values; so are
    denoisers (Kim et al. 2023, "BK-SDM") and SAM's image encoder (Zhang et al. 2023, "MobileSAM") distilled. ``embedding`` (N, D)
    or tokens (N, T, D): squared distance of vectors over their mean squared length. A tap, channels first: from the teacher's
    channels with mean 0 and deviation 1 (Romero et al. 2015, "FitNets").
    """
    known = given.known
    if given.kind is None:
        shape = (1, -1, *[1] * (teacher.ndim - 2))
        mean, scale = (
            torch.as_tensor(values, dtype=torch.float32, device=teacher.device).reshape(shape)
            for values in (known.mean, known.scales)
        )
        return F.mse_loss(student, (teacher - mean) / scale)
    if given.kind == "embedding":
        student, teacher = _vectors(student), _vectors(teacher)
        return ((student - teacher) ** 2).sum(-1).mean() / (known.square or 1.0)
    return F.mse_loss(student, teacher) / (known.column_variance if given.kind == "values" else known.variance)


def cosine(student: Tensor, teacher: Tensor, given: Given) -> Tensor:
    """One less the cosine, mean over vectors (N, D), tokens (N, T, D), places of a map (N, D, h, w) or, of a tap, (N, C, ...)."""
    if given.kind is None:
        return (1 - F.cosine_similarity(student, teacher, dim=1, eps=_LEAST_LENGTH)).mean()
    return (1 - F.cosine_similarity(_vectors(student), _vectors(teacher), dim=-1, eps=_LEAST_LENGTH)).mean()


def _vectors(x: Tensor) -> Tensor:
    """Outputs that are embeddings with their channels last: maps of features (N, D, h, w) have one at every place."""
    return rows(x) if x.ndim == MAP_AXES else x


def boxes(student: Tensor, teacher: Tensor, given: Given) -> Tensor:
    """See :func:`rsedge.compress.distill.box_loss.box_loss`."""
    assert given.grid is not None
    return box_loss(student, teacher, given.grid)
