"""Layers of Oriented R-CNN (Xie et al. 2021) in fixed shapes: a feature pyramid, what is said of anchors, and of turned regions.

Names are those of OBBDetection's (mmdetection's) checkpoints. What runs between the graphs, without torch:
:mod:`rsedge.data.boxes.proposals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.boxes.proposals import MOST_GROWTH, RATIOS

CELLS = 7
"""Along each edge of a region."""
SAMPLES = 2
"""Of a cell, along each edge."""
STRETCH = (1.2, 1.4)
"""Of a region's width and height before it is looked at. The configuration says (1.4, 1.2), and its code takes the height first."""
FINEST = 56
"""Edge (pixels) of regions that the finest map is looked at for, up to twice that."""
SPREAD = (0.1, 0.1, 0.2, 0.2, 0.1)
"""By which the offsets of a region are multiplied."""


class Conv(nn.Module):
    """mmcv's convolution without norm or activation."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class FPN(nn.Module):
    """Maps, the finest first -> as many of ``width`` channels, and one of half the last one's size (Lin et al. 2017)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Conv(c, width, 1) for c in channels)
        self.fpn_convs = nn.ModuleList(Conv(width, width, 3) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            size = (levels[i - 1].shape[2], levels[i - 1].shape[3])
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=size, mode="nearest")
        found = [conv(level) for conv, level in zip(self.fpn_convs, levels, strict=True)]
        return [*found, F.max_pool2d(found[-1], 1, 2)]


class OrientedRPN(nn.Module):
    """Maps (N, width, h, w) -> objectness (N, A), 0 to 1, and offsets (N, A, 6), in the order of the anchors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(width, width, 3, padding=1)
        self.rpn_cls = nn.Conv2d(width, len(RATIOS), 1)
        self.rpn_reg = nn.Conv2d(width, 6 * len(RATIOS), 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        shared = [F.relu(self.rpn_conv(x)) for x in maps]
        scores = [self.rpn_cls(x).permute(0, 2, 3, 1).flatten(1) for x in shared]
        offsets = [self.rpn_reg(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 6) for x in shared]
        return torch.cat(scores, 1).sigmoid(), torch.cat(offsets, 1)


class OrientedHead(nn.Module):
    """Regions' features (..., width, 7, 7) -> class logits (..., classes + 1), background last, and offsets (..., 5)."""

    def __init__(self, width: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.shared_fcs = nn.ModuleList((nn.Linear(width * CELLS**2, hidden), nn.Linear(hidden, hidden)))
        self.fc_cls = nn.Linear(hidden, classes + 1)
        self.fc_reg = nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(-3)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        return self.fc_cls(x), self.fc_reg(x)


def aligned(maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor) -> Tensor:
    """What maps (N, C, h, w) have in turned boxes (N, R, 5), each in the map of its size: (N, R, C, 7, 7).

    RoIAlignRotated with bilinear samples, two by two a cell; beyond a map's edge by more than a pixel there is nothing.
    """
    width, height = boxes[..., 2] * STRETCH[0], boxes[..., 3] * STRETCH[1]
    level = (torch.sqrt(width * height) / FINEST + 1e-6).log2().floor().clamp(0, len(maps) - 1)
    x, y = _places(boxes, width, height)
    found = torch.zeros((), device=boxes.device)
    for i, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        sampled = _sampled(one, x / stride - 0.5, y / stride - 0.5)
        found = found + sampled * (level == i).to(sampled.dtype)[..., None, None, None]
    return F.avg_pool2d(found.flatten(0, 1), SAMPLES).unflatten(0, boxes.shape[:2])  # type: ignore[no-untyped-call, no-any-return]


def _places(boxes: Tensor, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """Where regions are sampled, x and y in pixels: each (N, R, 14, 14)."""
    count = CELLS * SAMPLES
    steps = (torch.arange(count, device=boxes.device) + 0.5) / count - 0.5
    across = (steps * width[..., None, None]).expand(-1, -1, count, -1)
    down = (steps[:, None] * height[..., None, None]).expand(-1, -1, -1, count)
    cos, sin = boxes[..., 4].cos()[..., None, None], boxes[..., 4].sin()[..., None, None]
    x, y = boxes[..., 0, None, None], boxes[..., 1, None, None]
    return down * sin + across * cos + x, down * cos - across * sin + y


def _sampled(one: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Maps (N, C, h, w) at places (N, R, a, b): (N, R, C, a, b)."""
    rows, columns = one.shape[2:]
    inside = (y >= -1) & (y <= rows) & (x >= -1) & (x <= columns)
    grid = torch.stack((2 * x / (columns - 1) - 1, 2 * y / (rows - 1) - 1), -1)
    # The places of an image's regions lie below each other.
    found = F.grid_sample(one, grid.flatten(1, 2), "bilinear", "border", align_corners=True)
    found = found.reshape(*one.shape[:2], *x.shape[1:]).transpose(1, 2)
    return found * inside[:, :, None].to(found.dtype)


def refined(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Turned boxes (..., 5) moved, stretched and turned by offsets (..., 5), the width the longer side, angles from -pi/2."""
    x, y, width, height, angle = boxes.unbind(-1)
    dx, dy, dw, dh, turn = (offsets * offsets.new_tensor(SPREAD)).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    x, y = x + dx * width * cos + dy * height * sin, y - dx * width * sin + dy * height * cos
    width = width * dw.clamp(-MOST_GROWTH, MOST_GROWTH).exp()
    height = height * dh.clamp(-MOST_GROWTH, MOST_GROWTH).exp()
    swap = width <= height
    turned = angle + turn + swap.to(angle.dtype) * (math.pi / 2)
    turned = turned - ((turned + math.pi / 2) / math.pi).floor() * math.pi
    return torch.stack((x, y, torch.maximum(width, height), torch.minimum(width, height), turned), -1)
