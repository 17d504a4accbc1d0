"""Distillation losses. A loss, the tap it reads and the connector that matches shapes are three independent things."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of features normalised per channel over the batch (N, C, H, W), as in FitNets (Romero 2015)."""
    mean, std = teacher.mean((0, 2, 3), keepdim=True), teacher.std((0, 2, 3), keepdim=True) + 1e-3
    return F.mse_loss(student.float(), ((teacher - mean) / std).float())
