"""A detector for the edge: slim U-Net features, one box per cell and no anchors, decoded to candidates in the graph.

Head after YOLOX (Ge et al. 2021): per cell the offset of the centre, the logarithm of the size, objectness and classes; where boxes
are turned cosine and sine of twice the angle too, each behind a hyperbolic tangent (:mod:`rsedge.data.boxes.candidates`).
``runtimes/inference/boxes.py`` makes boxes of the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.data.boxes.candidates import BESIDE, BOX, TURN, width_of
from rsedge.data.errors import RequestError
from rsedge.models.features import Features, Shape, inside
from rsedge.models.students.slim_unet import Skips, SlimFeatures, conv_bn_relu

LARGEST_SIZE = 8.0
"""Natural logarithm of the largest width or height in strides: keeps an untrained head finite."""
PRIOR = 0.01
"""Objectness and class scores of an untrained head."""


class SlimDetector(nn.Module):
    """x (N, bands, T, T) normalised -> candidates (N, A, 5 + classes): centre x, y, width, height (pixels), objectness,
    class scores, the last two between 0 and 1; ``oriented``: (N, A, 5 + classes + 2), cosine and sine of twice the angle last.

    Args:
        tile: edge of the input (pixels), a multiple of 2 ** (stages + 1).
        levels: decoder stages that get a head, counted from the finest (stride 2 is 0): 1, 2, 3 are strides 4, 8, 16.
        head: channels between features and boxes.
        oriented: boxes are turned.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        tile: int,
        stem: int = 16,
        encoder: Sequence[int] = (32, 48, 64, 96),
        blocks: Sequence[int] = (1, 1, 1, 1),
        decoder: Sequence[int] = (64, 64, 48),
        levels: Sequence[int] = (1, 2, 3),
        head: int = 48,
        skips: Skips = "concat",
        oriented: bool = False,
    ) -> None:
        super().__init__()
        self.oriented = oriented
        finest = len(encoder) - len(decoder)
        if not all(finest <= level < len(encoder) for level in levels):
            raise RequestError(
                f"student slim-detector: levels {list(levels)} must lie between {finest} and {len(encoder) - 1}"
            )
        multiple = 2 ** (len(encoder) + 1)
        if tile % multiple:
            raise RequestError(f"student slim-detector: a tile of {tile} pixels is no multiple of {multiple}")
        self.features = SlimFeatures(bands, stem, encoder, blocks, decoder, skips)
        self.levels = sorted(levels)
        self.made = [len(encoder) - 1 - i for i in range(len(decoder))]
        widths = dict(zip(self.made, decoder, strict=True))
        self.heads = nn.ModuleList(
            nn.Sequential(conv_bn_relu(widths[level], head), nn.Conv2d(head, width_of(classes, oriented), 1))
            for level in self.levels
        )
        for level in self.levels:
            self.register_buffer(f"_corners{level}", _corners(tile, 2 ** (level + 1)), persistent=False)
        for made in self.heads:
            # Few cells hold an object: without this, thousands of empty ones drown the first steps (Lin et al. 2017).
            scores = made[-1].bias[BOX : BESIDE + classes]  # type: ignore[index]
            nn.init.constant_(scores, -math.log((1 - PRIOR) / PRIOR))

    @property
    def grid(self) -> Tensor:
        """The cells in the order of the candidates, (A, 3): centre x, y and stride (pixels)."""
        cells = []
        for level in self.levels:
            corners, stride = self.get_buffer(f"_corners{level}"), float(2 ** (level + 1))
            cells.append(torch.cat([corners + stride / 2, torch.full_like(corners[:, :1], stride)], 1))
        return torch.cat(cells)

    def forward(self, x: Tensor) -> Tensor:
        raw = zip(self.levels, self.undecoded(x), strict=True)
        return torch.cat([self._decoded(level, values) for level, values in raw], dim=1)

    def feature_contract(self, shape: Shape) -> Features:
        """Those of its U-Net."""
        return inside("features", self.features.feature_contract(shape))

    def undecoded(self, x: Tensor) -> list[Tensor]:
        """x -> raw values (N, values, h, w) of each level, fine to coarse."""
        maps = dict(zip(self.made, self.features.decode(self.features.encode(x)), strict=True))
        return [head(maps[level]) for level, head in zip(self.levels, self.heads, strict=True)]

    def _decoded(self, level: int, raw: Tensor) -> Tensor:
        """Raw values (N, values, h, w) -> candidates (N, h * w, values)."""
        stride = float(2 ** (level + 1))
        cells = raw.flatten(2).transpose(1, 2)
        centre = cells[..., :2] * stride + self.get_buffer(f"_corners{level}")
        size = cells[..., 2:4].clamp(max=LARGEST_SIZE).exp() * stride
        scores = cells[..., BOX : cells.shape[-1] - TURN * self.oriented].sigmoid()
        turn = (cells[..., -TURN:].tanh(),) if self.oriented else ()
        return torch.cat([centre, size, scores, *turn], dim=-1)


def _corners(tile: int, stride: int) -> Tensor:
    """Top left corners (cells, 2) of the cells, x and y in pixels, row by row."""
    steps = torch.arange(tile // stride) * float(stride)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)
