"""Encoders that give a map of features: residual 3x3 convolutions, halved until the map is as coarse as the teacher's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.students.slim_unet import ResidualBlock, conv_bn_relu


class SlimEncoder(nn.Module):
    """x (N, bands, H, W) normalised -> (N, classes, H / stride, W / stride), H and W multiples of ``stride``.

    Args:
        classes: features at each place.
        stride: pixels that a place is wide, a power of two.
        widths: channels at full resolution and after each halving; the last goes on where the stride asks for more.
        blocks: residual blocks behind each halving.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        stride: int = 1,
        widths: Sequence[int] = (16, 24, 48, 96, 128, 192),
        blocks: int = 1,
    ) -> None:
        halvings = stride.bit_length() - 1
        if stride != 1 << halvings or not widths:
            raise RequestError(
                f"student slim-encoder: its maps are 1, 2, 4, 8 ... times coarser than the input, the teacher's {stride} times; "
                "take the teacher itself (student: {name: teacher})"
            )
        super().__init__()
        levels = [*widths, *itertools.repeat(widths[-1], halvings)][: halvings + 1]
        layers: list[nn.Module] = [conv_bn_relu(bands, levels[0])]
        for narrow, wide in itertools.pairwise(levels):
            layers += [conv_bn_relu(narrow, wide, stride=2), *(ResidualBlock(wide) for _ in range(blocks))]
        layers += [ResidualBlock(levels[-1]) for _ in range(blocks if not halvings else 0)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(levels[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layers(x))
        return found
