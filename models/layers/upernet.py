"""UPerNet's head (Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding"): a pyramid of pooled maps on the coarsest
map, then a feature pyramid. Names are those of mmsegmentation, whose checkpoints have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.layers.pooling import pooling

SCALES = (1, 2, 3, 6)
"""Cells along each edge that the coarsest map is pooled to."""


class ConvBN(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Pooled(nn.Module):
    """Square maps (N, C, size, size) averaged over ``cells`` x ``cells`` parts."""

    _rows: Tensor

    def __init__(self, size: int, cells: int) -> None:
        super().__init__()
        self.register_buffer("_rows", pooling(size, cells), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._rows @ x @ self._rows.T


class UPerHead(nn.Module):
    """Maps, the finest first -> logits (N, classes, H, W) of the finest map's size.

    Args:
        channels: of each map.
        size: rows and columns of the coarsest.
    """

    def __init__(self, channels: Sequence[int], size: int, classes: int, width: int = 512) -> None:
        super().__init__()
        *finer, coarsest = channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(Pooled(size, cells), ConvBN(coarsest, width)) for cells in SCALES
        )
        self.bottleneck = ConvBN(coarsest + len(SCALES) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvBN(c, width) for c in finer)
        self.fpn_convs = nn.ModuleList(ConvBN(width, width, 3) for _ in finer)
        self.fpn_bottleneck = ConvBN(len(channels) * width, width, 3)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, coarsest = maps
        pooled = [enlarged(module(coarsest), coarsest) for module in self.psp_modules]
        above = self.bottleneck(torch.cat([coarsest, *pooled], 1))
        levels = [above]
        for lateral, x in zip(reversed(self.lateral_convs), reversed(finer), strict=True):
            reduced = lateral(x)
            above = reduced + enlarged(above, reduced)
            levels.insert(0, above)
        smooth = [conv(level) for conv, level in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        fused = torch.cat([smooth[0], *(enlarged(x, smooth[0]) for x in smooth[1:])], 1)
        return self.conv_seg(self.fpn_bottleneck(fused))  # type: ignore[no-any-return]


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinearly to the rows and columns of another map, corners not aligned."""
    return F.interpolate(x, size=(like.shape[2], like.shape[3]), mode="bilinear", align_corners=False)
