"""How far turned boxes are apart, by Gaussians: smooth where intersection over union is not, and where the angle begins anew.

A box is a Gaussian with its centre as mean and the covariance of a uniform box: squares of the sides over 12, turned by its angle
(Llerena et al. 2021, "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection"). Half a turn, and
sides that change places by a quarter of one, give the same Gaussian, so nothing has to be known of such conventions; a square has
no angle at all, and an overlap with the true one of 0.71 at the least. Distances are Hellinger's.

Boxes are (..., 6): centre x, y, width, height (pixels), cosine and sine of twice the angle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsedge.data.boxes.candidates import BOX, TURN

_LEAST_SIDE = 0.1
"""Pixels: keeps an untrained head's variances above zero."""
_LEAST = 1e-6


def found(candidates: Tensor) -> Tensor:
    """Of candidates (..., 5 + K + 2)."""
    turn = candidates[..., -TURN:]
    length = (turn.square().sum(-1, keepdim=True) + _LEAST).sqrt()
    return torch.cat([candidates[..., :BOX], turn / length], -1)


def wanted(rows: Tensor) -> Tensor:
    """Of the rows of the table that is taught (..., 5 + K + 1), the angle last."""
    low, high, angle = rows[..., :2], rows[..., 2:BOX], rows[..., -1:]
    return torch.cat([(low + high) / 2, high - low, (2 * angle).cos(), (2 * angle).sin()], -1)


def within(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (A, 2) lie in boxes (M, 6): (M, A)."""
    x, y = (points[None] - boxes[:, None, :2]).unbind(-1)
    width, height = (boxes[:, None, i] for i in (2, 3))
    angle = torch.atan2(boxes[:, None, 5], boxes[:, None, 4]) / 2
    cos, sin = angle.cos(), angle.sin()
    return ((x * cos - y * sin).abs() < width / 2) & ((x * sin + y * cos).abs() < height / 2)


def share(first: Tensor, second: Tensor) -> Tensor:
    """1 less the distance: 1 where they are the same, 0 far apart; of two broadcast shapes."""
    return 1 - apart(first, second)


def apart(first: Tensor, second: Tensor) -> Tensor:
    """Hellinger distance of the Gaussians, 0 to 1."""
    return (-torch.expm1(-_bhattacharyya(first, second))).clamp(min=_LEAST).sqrt()


def _bhattacharyya(first: Tensor, second: Tensor) -> Tensor:
    step = first[..., :2] - second[..., :2]
    (xx, yy, xy, one), (xx2, yy2, xy2, other) = _covariance(first), _covariance(second)
    xx, yy, xy = (xx + xx2) / 2, (yy + yy2) / 2, (xy + xy2) / 2
    # No determinant of a mean is below the geometric mean of both; rounding would let it be, where boxes are long and thin.
    both = torch.maximum(xx * yy - xy.square(), (one * other).sqrt())
    x, y = step.unbind(-1)
    means = (yy * x.square() + xx * y.square() - 2 * xy * x * y) / both / 8
    return means + (both.log() - (one.log() + other.log()) / 2) / 2


def _covariance(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Variances along x and y, covariance, and determinant; rows count downwards."""
    along, across = (boxes[..., 2:BOX].clamp(min=_LEAST_SIDE).square() / 12).unbind(-1)
    mean, half = (along + across) / 2, (along - across) / 2
    cos, sin = boxes[..., 4], boxes[..., 5]
    return mean + half * cos, mean - half * cos, -half * sin, along * across
