"""From maps to tokens: patches of an image, and maps row by row."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """x (N, bands, H, W) -> tokens (N, H / patch * W / patch, dim); the convolution is ``proj``, as in timm."""

    def __init__(self, bands: int, dim: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(bands, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return as_tokens(self.proj(x))


def as_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return x.flatten(2).transpose(-2, -1)
