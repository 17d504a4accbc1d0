"""Losses between the vectors (N, D) of a batch. They are defined by pairs and triples of inputs: one alone has none, and gives
0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill.losses import Given


def rkd(student: Tensor, teacher: Tensor, _given: Given, distance: float, angle: float) -> Tensor:
    """Relational distillation (Park et al. 2019): ``distance`` times Huber's loss of the distances of all pairs, each over the mean
    distance of the batch, plus ``angle`` times that of the cosines of the angles at every vector between every two others."""
    distances = F.smooth_l1_loss(_distances(student), _distances(teacher))
    angles = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance * distances + angle * angles


def _distances(x: Tensor) -> Tensor:
    """(N, N), with a mean of 1 over pairs; zeros where all vectors are the same."""
    found = _apart(x).square().sum(-1).clamp(min=1e-12).sqrt()
    found = found * ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    pairs = max(1, len(x) * (len(x) - 1))
    return found / (found.sum() / pairs).clamp(min=1e-6)


def _angles(x: Tensor) -> Tensor:
    """(N, N, N): at the first, between the directions to the second and the third."""
    direction = F.normalize(_apart(x), dim=-1, eps=1e-6)
    return direction @ direction.transpose(1, 2)


def _apart(x: Tensor) -> Tensor:
    return x[None] - x[:, None]


def contrastive(student: Tensor, teacher: Tensor, _given: Given, tau: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) between networks, as Tian et al. (2020) distil: a student's vector is to be told, by its
    cosine over ``tau``, to belong to the teacher's of the same input and to none of the others in the batch; cross-entropy."""
    s, t = (F.normalize(x, dim=1, eps=1e-6) for x in (student, teacher))
    return F.cross_entropy(s @ t.T / tau, torch.arange(len(s), device=s.device))
