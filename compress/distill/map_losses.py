"""Losses of what lies in places: maps (N, C, H, W), and lines of places or tokens (N, C, L). Each is a mean over views."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill.losses import Given
from rsedge.compress.distill.taps import MAP_AXES


def cwd(student: Tensor, teacher: Tensor, _given: Given, tau: float) -> Tensor:
    """Channel-wise distillation (Shu et al. 2021): of each channel a distribution over places, ``softmax(x / tau)``;
    Kullback-Leibler divergence from the teacher's, mean over channels, times ``tau**2``."""
    log_p, log_q = (F.log_softmax(x.flatten(2) / tau, dim=2) for x in (student, teacher))
    return (log_q.exp() * (log_q - log_p)).sum(2).mean() * tau**2


def structure(student: Tensor, teacher: Tensor, _given: Given, nodes: float) -> Tensor:
    """Pairwise distillation (Liu et al. 2019, "Structured Knowledge Distillation for Dense Prediction"): the cosines of all pairs
    of nodes, mean squared difference. A node is the mean of a part of the map, at most ``nodes`` a side; of a line every place is
    one.
    """
    alike = []
    for x in (student, teacher):
        side = round(nodes)
        pooled = F.adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3]))) if x.ndim == MAP_AXES else x
        unit = F.normalize(pooled.flatten(2), dim=1, eps=1e-6)
        alike.append(unit.transpose(1, 2) @ unit)
    return F.mse_loss(alike[0], alike[1])


def attention(student: Tensor, teacher: Tensor, _given: Given) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis 2017): of each view the sum of squares over channels at every place, made a
    vector of length 1; squared distance from the teacher's, mean over views."""
    s, t = (F.normalize(x.square().sum(1).flatten(1), dim=1) for x in (student, teacher))
    return (s - t).square().sum(1).mean()


def relations(student: Tensor, teacher: Tensor, _given: Given) -> Tensor:
    """Relations of tokens (Wang et al. 2021, "MiniLMv2", one relation head): each token's distribution over all tokens,
    ``softmax(x x^T / sqrt(C))``; Kullback-Leibler divergence from the teacher's, mean over tokens."""
    logs = []
    for x in (student, teacher):
        tokens = x.flatten(2).transpose(1, 2)
        logs.append(F.log_softmax(tokens @ tokens.transpose(1, 2) / tokens.shape[-1] ** 0.5, dim=-1))
    return (logs[1].exp() * (logs[1] - logs[0])).sum(-1).mean()
