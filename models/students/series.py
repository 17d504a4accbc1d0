"""Students for one pixel's time series: a small transformer, and convolutions along time.

Both take (N, T, bands) normalised and give (N, classes). Values that are missing are masked (:mod:`.columns`); a time at which
nothing is there is not attended to and not counted in the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.models.layers.masked_blocks import Block, attention_bias
from rsedge.models.layers.stream import Stream
from rsedge.models.students.columns import Angles, Columns, Missing


class SeriesTransformer(nn.Module):
    """A token per time, pre-norm attention (Vaswani et al. 2017), mean over the times that are there.

    Args:
        dim, depth, heads: of the transformer; ``dim`` is a multiple of ``heads``.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        frames: int,
        missing: Missing | None = None,
        angles: Angles = (),
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.columns = Columns(bands, missing, angles)
        self.embed = nn.Linear(self.columns.width, dim)
        self.position = nn.Parameter(torch.randn(1, frames, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads, fused=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def streams(self) -> list[Stream]:
        """For pruning: what goes with the width."""
        return [Stream(("embed",), ("blocks",), {"position": 0}, ("norm",), ("head",), ("columns",))]

    def forward(self, x: Tensor) -> Tensor:
        features, present = self.columns(x)
        tokens = self.embed(features) + self.position
        bias = None if present is None else attention_bias(present)
        for block in self.blocks:
            tokens = block(tokens, bias)
        return self.head(self.norm(mean_over_time(tokens, present)))  # type: ignore[no-any-return]


class _Residual(nn.Module):
    """Two convolutions along time around a shortcut: (N, width, T) -> same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv1, self.bn1 = nn.Conv1d(width, width, kernel, padding=padding, bias=False), nn.BatchNorm1d(width)
        self.conv2, self.bn2 = nn.Conv1d(width, width, kernel, padding=padding, bias=False), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class SeriesConv(nn.Module):
    """Residual 1-D convolutions (after TempCNN, Pelletier et al. 2019), mean and maximum over time, one linear layer.

    Args:
        width: channels; ``blocks``: residual blocks of two convolutions; ``kernel``: times that one of them sees (odd).
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        frames: int,
        missing: Missing | None = None,
        angles: Angles = (),
        width: int = 64,
        blocks: int = 2,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.columns = Columns(bands, missing, angles)
        self.stem = nn.Conv1d(self.columns.width, width, kernel, padding=kernel // 2, bias=False)
        self.stem_bn = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(_Residual(width, kernel) for _ in range(blocks))
        self.embedding = nn.Identity()  # A name for taps.
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        features, present = self.columns(x)
        y = F.relu(self.stem_bn(self.stem(features.transpose(1, 2))))
        for block in self.blocks:
            y = block(y)
        # After a ReLU nothing is below 0, so a time that is not there may count as 0 in the maximum.
        shown = y if present is None else y * present[:, None]
        pooled = [mean_over_time(y.transpose(1, 2), present), shown.amax(-1)]
        return self.head(self.embedding(torch.cat(pooled, dim=1)))  # type: ignore[no-any-return]


def mean_over_time(tokens: Tensor, present: Tensor | None) -> Tensor:
    """Mean of tokens (N, T, dim) over the times that are there -> (N, dim); 0 where none is."""
    if present is None:
        return tokens.mean(1)
    return (tokens * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1.0)
