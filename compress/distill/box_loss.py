"""What a detector learns from boxes: a teacher's, or labels.

A student's grid is seldom its teacher's (other strides, anchors or none, another tile), and a black box shows no raw head at all.
So what is distilled is the teacher's decoded boxes, with its certainty, and not its head: they are assigned to the student's own
cells anew at every step (SimOTA, Ge et al. 2021, "YOLOX"). The teacher's objectness scales what a box and its classes count (Mehta
and Ozturk 2018, "Object detection at 200 frames per second"), its class scores are soft targets, and its boxes come without the
near-duplicates that they suppress as well. Labels are boxes of certainty 1, so that a teacher is fitted by the same loss.

How like two boxes are says a :class:`Form`: intersection over union of boxes along rows and columns, the Gaussians of turned ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsedge.compress.distill import gaussian_boxes
from rsedge.data.boxes.candidates import BESIDE, BOX, TURN

BOX_WEIGHT = 5.0
"""Of the overlap beside objectness and classes; of the cost of a match 3. Both are YOLOX's."""
_COST_OVERLAP = 3.0
_RADIUS = 2.5
_MOST_CELLS = 10
_OUTSIDE = 1e5
_LEAST = 1e-6


@dataclass(frozen=True)
class Form:
    """How boxes of one kind are compared.

    Attributes:
        found: candidates (..., 5 + K or more) -> boxes (..., B) in the form of the other functions.
        wanted: rows of the table that is taught (..., 6 + K) -> the same.
        share: boxes of two broadcast shapes -> how much of each other they are, 0 to 1.
        apart: boxes (n, B) in pairs -> what is learned, 0 where they are the same.
        within: points (A, 2) and boxes (M, B) -> (M, A), whether each lies in each.
    """

    found: Callable[[Tensor], Tensor]
    wanted: Callable[[Tensor], Tensor]
    share: Callable[[Tensor, Tensor], Tensor]
    apart: Callable[[Tensor, Tensor], Tensor]
    within: Callable[[Tensor, Tensor], Tensor]


def box_loss(candidates: Tensor, wanted_boxes: Tensor, grid: Tensor) -> Tensor:
    """Mean over the boxes of a batch: objectness of all cells, overlap and classes of those that a box is assigned to.

    Args:
        candidates: (N, A, 5 + K), or (N, A, 5 + K + 2) of turned boxes (:mod:`rsedge.data.boxes.candidates`).
        wanted_boxes: (N, M, 5 + K + 1) corners (pixels), certainty (0 fills the table up), class scores and angle (radians), 0
            where boxes lie along rows and columns.
        grid: (A, 3) the cells' centres x, y and their stride (pixels).

    Returns:
        NaN where a candidate is not finite.
    """
    found, wanted = candidates.float(), wanted_boxes.float()
    if not torch.isfinite(found).all():
        # A network that has diverged: the trainer says so of a loss that is no number, torch's losses in words of their own.
        return found.sum() * torch.nan
    oriented = found.shape[-1] > wanted.shape[-1]
    form = TURNED if oriented else UPRIGHT
    boxes = form.found(found)
    scores = found[..., BOX : found.shape[-1] - TURN * oriented].clamp(_LEAST, 1 - _LEAST)
    target = torch.zeros_like(scores[..., 0])
    total = scores.new_zeros(())
    for i in range(len(found)):
        real = wanted[i][wanted[i, :, BOX] > 0]
        if not len(real):
            continue
        cells, numbers = assigned(boxes[i].detach(), scores[i].detach(), real, grid, form)
        taken = real[numbers]
        target[i, cells] = taken[:, BOX]
        apart = form.apart(boxes[i, cells], form.wanted(taken))
        classes = F.binary_cross_entropy(scores[i, cells, 1:], taken[:, BESIDE:-1], reduction="none").sum(1)
        total = total + (taken[:, BOX] * (BOX_WEIGHT * apart + classes)).sum()
    objectness = F.binary_cross_entropy(scores[..., 0], target, reduction="sum")
    return (objectness + total) / target.sum().clamp(min=1.0)


@torch.no_grad()
def assigned(boxes: Tensor, scores: Tensor, real: Tensor, grid: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Numbers of cells and, for each, of the box (of ``real``, (M, 5 + K + 1)) that it shall find.

    A box takes as many of the cells in or near it as its overlaps with their present boxes (A, B) add up to (at least one), the
    cheapest ones; a cell that several want goes to the one for which it is cheapest.
    """
    wanted = form.wanted(real)
    inside = form.within(grid[:, :2], wanted)
    apart = (grid[None, :, :2] - (real[:, None, :2] + real[:, None, 2:BOX]) / 2).abs()
    near = (apart < _RADIUS * grid[None, :, 2:]).all(-1)
    cells = (inside | near).any(0).nonzero()[:, 0]
    if not len(cells):
        return cells, cells
    shares = form.share(wanted[:, None], boxes[None, cells])
    certain = (scores[cells, :1] * scores[cells, 1:]).sqrt()[None].expand(len(real), -1, -1)
    wrong = F.binary_cross_entropy(certain, real[:, None, BESIDE:-1].expand_as(certain), reduction="none").sum(-1)
    cost = wrong - _COST_OVERLAP * (shares + 1e-8).log() + _OUTSIDE * ~(inside & near)[:, cells]
    few = min(_MOST_CELLS, len(cells))
    count = shares.topk(few, 1).values.sum(1).int().clamp(min=1)
    cheapest = cost.topk(few, 1, largest=False).indices
    wanted_cells = torch.zeros_like(cost, dtype=torch.bool)
    wanted_cells.scatter_(1, cheapest, torch.arange(few, device=cost.device)[None] < count[:, None])
    numbers = torch.where(wanted_cells, cost, torch.inf).argmin(0)
    taken = wanted_cells.any(0)
    return cells[taken], numbers[taken]


def _corners_found(candidates: Tensor) -> Tensor:
    centre, half = candidates[..., :2], candidates[..., 2:BOX] / 2
    return torch.cat([centre - half, centre + half], -1)


def _corners_wanted(rows: Tensor) -> Tensor:
    return rows[..., :BOX]


def _in_corners(points: Tensor, corners: Tensor) -> Tensor:
    return ((points[None] > corners[:, None, :2]) & (points[None] < corners[:, None, 2:])).all(-1)


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


def _apart(first: Tensor, second: Tensor) -> Tensor:
    return 1 - generalised_overlap(first, second)


def _turned_apart(first: Tensor, second: Tensor) -> Tensor:
    """Up to 2, as what is learned of boxes along rows and columns."""
    return 2 * gaussian_boxes.apart(first, second)


UPRIGHT = Form(_corners_found, _corners_wanted, _overlap, _apart, _in_corners)
"""Boxes along rows and columns: (..., 4) corners."""
TURNED = Form(gaussian_boxes.found, gaussian_boxes.wanted, gaussian_boxes.share, _turned_apart, gaussian_boxes.within)
"""Turned ones, by their Gaussians (:mod:`.gaussian_boxes`)."""
