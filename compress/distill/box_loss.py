"""What a detector learns from boxes: a teacher's, or labels.

A student's grid is seldom its teacher's (other strides, anchors or none, another tile), and a black box shows no raw head at all.
So what is distilled is the teacher's decoded boxes, with its certainty, and not its head: they are assigned to the student's own
cells anew at every step (SimOTA, Ge et al. 2021, "YOLOX"). The teacher's objectness scales what a box and its classes count (Mehta
and Ozturk 2018, "Object detection at 200 frames per second"), its class scores are soft targets, and its boxes come without the
near-duplicates that they suppress as well. Labels are boxes of certainty 1, so that a teacher is fitted by the same loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOX_WEIGHT = 5.0
"""Of the overlap beside objectness and classes; of the cost of a match 3. Both are YOLOX's."""
_COST_OVERLAP = 3.0
_RADIUS = 2.5
_MOST_CELLS = 10
_OUTSIDE = 1e5
_LEAST = 1e-6


def box_loss(candidates: Tensor, wanted_boxes: Tensor, grid: Tensor) -> Tensor:
    """Mean over the boxes of a batch: objectness of all cells, overlap and classes of those that a box is assigned to.

    Args:
        candidates: (N, A, 5 + K) centre x, y, width, height (pixels), objectness and class scores (0 to 1).
        wanted_boxes: (N, M, 5 + K) corners (pixels), certainty (0 fills the table up) and class scores.
        grid: (A, 3) the cells' centres x, y and their stride (pixels).

    Returns:
        NaN where a candidate is not finite.
    """
    found, wanted = candidates.float(), wanted_boxes.float()
    if not torch.isfinite(found).all():
        # A network that has diverged: the trainer says so of a loss that is no number, torch's losses in words of their own.
        return found.sum() * torch.nan
    corners = torch.cat([found[..., :2] - found[..., 2:4] / 2, found[..., :2] + found[..., 2:4] / 2], -1)
    scores = found[..., 4:].clamp(_LEAST, 1 - _LEAST)
    target = torch.zeros_like(scores[..., 0])
    total = scores.new_zeros(())
    for i in range(len(found)):
        real = wanted[i][wanted[i, :, 4] > 0]
        if not len(real):
            continue
        cells, boxes = assigned(corners[i].detach(), scores[i].detach(), real, grid)
        taken = real[boxes]
        target[i, cells] = taken[:, 4]
        overlap = generalised_overlap(corners[i, cells], taken[:, :4])
        classes = F.binary_cross_entropy(scores[i, cells, 1:], taken[:, 5:], reduction="none").sum(1)
        total = total + (taken[:, 4] * (BOX_WEIGHT * (1 - overlap) + classes)).sum()
    objectness = F.binary_cross_entropy(scores[..., 0], target, reduction="sum")
    return (objectness + total) / target.sum().clamp(min=1.0)


@torch.no_grad()
def assigned(corners: Tensor, scores: Tensor, real: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of cells and, for each, of the box (of ``real``, (M, 5 + K)) that it shall find.

    A box takes as many of the cells in or near it as its overlaps with their present boxes add up to (at least one), the cheapest
    ones; a cell that several want goes to the one for which it is cheapest.
    """
    within = (grid[None, :, :2] > real[:, None, :2]) & (grid[None, :, :2] < real[:, None, 2:4])
    apart = (grid[None, :, :2] - (real[:, None, :2] + real[:, None, 2:4]) / 2).abs()
    inside, near = within.all(-1), (apart < _RADIUS * grid[None, :, 2:]).all(-1)
    cells = (inside | near).any(0).nonzero()[:, 0]
    if not len(cells):
        return cells, cells
    shares = _overlap(real[:, None, :4], corners[None, cells])
    certain = (scores[cells, :1] * scores[cells, 1:]).sqrt()[None].expand(len(real), -1, -1)
    wrong = F.binary_cross_entropy(certain, real[:, None, 5:].expand_as(certain), reduction="none").sum(-1)
    cost = wrong - _COST_OVERLAP * (shares + 1e-8).log() + _OUTSIDE * ~(inside & near)[:, cells]
    few = min(_MOST_CELLS, len(cells))
    count = shares.topk(few, 1).values.sum(1).int().clamp(min=1)
    cheapest = cost.topk(few, 1, largest=False).indices
    wanted = torch.zeros_like(cost, dtype=torch.bool)
    wanted.scatter_(1, cheapest, torch.arange(few, device=cost.device)[None] < count[:, None])
    boxes = torch.where(wanted, cost, torch.inf).argmin(0)
    taken = wanted.any(0)
    return cells[taken], boxes[taken]


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    common, union, _ = _areas(first, second)
    return common / union.clamp(min=_LEAST)


def generalised_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al. 2019) of boxes (n, 4) in pairs: -1 to 1."""
    common, union, hull = _areas(first, second)
    return common / union.clamp(min=_LEAST) - (hull - union) / hull.clamp(min=_LEAST)


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the intersection, of the union, and of the smallest box around both."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - common
    around = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    return common, union, around.prod(-1)
