"""Finer images: a few convolutions on the image's own grid and one sub-pixel convolution at the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.students.slim_unet import conv_bn_relu


class SlimUpscaler(nn.Module):
    """x (N, bands, H, W) normalised -> (N, classes, finer H, finer W): what interpolation gives, and what convolutions add to it.

    All convolutions run on the coarse grid, and the last one gives ``finer`` x ``finer`` values per pixel and band, laid out as
    pixels (sub-pixel convolution, Shi et al. 2016).

    Args:
        classes: bands of the finer image; as many as ``bands`` are taken to be the same ones in the same order.
        finer: how many times finer the grid becomes.
        width: channels of the hidden layers.
        depth: how many of them there are.
    """

    def __init__(self, bands: int, classes: int, finer: int = 2, width: int = 32, depth: int = 4) -> None:
        if min(finer, width, depth) < 1:
            raise RequestError(f"student slim-upscaler: finer {finer}, width {width} and depth {depth} are at least 1")
        super().__init__()
        self.finer = finer
        self.base = nn.Conv2d(bands, classes, 1)
        self.layers = nn.Sequential(*(conv_bn_relu(bands if i == 0 else width, width) for i in range(depth)))
        self.head = nn.Conv2d(width, classes * finer**2, 3, padding=1)
        with torch.no_grad():  # It starts as interpolation.
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
            if bands == classes:
                nn.init.dirac_(self.base.weight)
                self.base.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        base, detail = self.undecoded(x)
        if self.finer > 1:
            base = F.interpolate(base, scale_factor=float(self.finer), mode="bilinear", align_corners=False)
            detail = F.pixel_shuffle(detail, self.finer)
        return base + detail

    def undecoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bands and details on the coarse grid; what pruning follows."""
        return self.base(x), self.head(self.layers(x))
