"""Distillation losses. A loss, the tap it reads and the connector that matches shapes are three independent things."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill.box_loss import box_loss

LogitLoss = Literal["classes", "labels", "values", "embedding", "boxes", "image", "outputs"]


def kl_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of softened class distributions (Hinton et al. 2015), mean over all pixels.

    Args:
        student, teacher: logits (N, K) or (N, K, H, W); teacher may be float16.
        temperature: softening; the loss is scaled by its square so that gradients keep their size.
    """
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    q = F.log_softmax(teacher.float() / temperature, dim=1)
    per_pixel = (q.exp() * (q - log_p)).sum(1)
    return per_pixel.mean() * temperature**2


def balanced_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, power: float = 0.25) -> Tensor:
    """:func:`kl_logits` with pixels weighted by ``frequency ** -power`` of their teacher class within the batch.

    Rare classes (shadow is 3 % of most scenes) otherwise hardly count. Weights have mean 1 over the batch.
    """
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    q = F.log_softmax(teacher.float() / temperature, dim=1)
    per_pixel = (q.exp() * (q - log_p)).sum(1)
    top = q.argmax(1)
    share = torch.bincount(top.flatten(), minlength=q.shape[1]).float() / top.numel()
    weight = torch.where(share > 0, share.clamp(min=0.01) ** -power, torch.zeros_like(share))[top]
    return (per_pixel * weight).sum() / weight.sum() * temperature**2


def label_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of softened yes-or-no distributions, mean over labels; logits (N, K)."""
    s, t = student.float() / temperature, teacher.float() / temperature
    p = torch.sigmoid(t)
    apart = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return apart.mean() * temperature**2


def embedding_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One less the cosine, plus the relative squared distance, mean over vectors (N, D), or over tokens (N, T, D)."""
    s, t = student.float(), teacher.float()
    size = (t * t).sum(-1).mean()
    return (1 - F.cosine_similarity(s, t, dim=-1)).mean() + ((s - t) ** 2).sum(-1).mean() / size


def value_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance over the variance of the teacher's values in the batch; values (N, K)."""
    s, t = student.float(), teacher.float()
    return F.mse_loss(s, t) / t.var(0, unbiased=False).mean().clamp(min=1e-6)


def output_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance over the variance of the teacher's values; any shape.

    What denoisers (Kim et al. 2023, "BK-SDM") and SAM's image encoder (Zhang et al. 2023, "MobileSAM") are distilled by; the
    variance lets outputs of different units be added.
    """
    s, t = student.float(), teacher.float()
    return F.mse_loss(s, t) / t.var(unbiased=False).clamp(min=1e-6)


def logit_loss(
    kind: LogitLoss,
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    balance: float = 0.0,
    grid: Tensor | None = None,
) -> Tensor:
    """The loss for one kind of output: ``classes`` one of K, ``labels`` K yes or no, ``values`` numbers, ``embedding``,
    ``boxes``, which need the student's ``grid`` (:func:`rsedge.compress.distill.box_loss.box_loss`), ``image`` values of bands, and
    ``outputs`` of a part."""
    if kind == "boxes":
        assert grid is not None
        return box_loss(student, teacher, grid)
    if kind == "labels":
        return label_kl(student, teacher, temperature)
    if kind == "embedding":
        return embedding_distance(student, teacher)
    if kind in ("image", "outputs"):
        return output_distance(student, teacher)
    if kind == "values":
        return value_distance(student, teacher)
    if balance and student.ndim == 4:
        return balanced_kl(student, teacher, temperature, balance)
    return kl_logits(student, teacher, temperature)


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of features normalised per channel over the batch, as in FitNets (Romero 2015).

    Maps (N, C, H, W) or vectors (N, C).
    """
    axes = [0, *range(2, teacher.ndim)]
    mean, std = teacher.mean(axes, keepdim=True), teacher.std(axes, keepdim=True) + 1e-3
    return F.mse_loss(student.float(), ((teacher - mean) / std).float())
