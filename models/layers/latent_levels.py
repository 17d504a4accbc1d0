"""What the denoiser of latent diffusion and its control network share: the time, levels with attention, the way down to the middle.

Names are those of ``diffusers``. Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.layers.latent_blocks import GROUPS, Attention, Downsample, ResNet
from rsedge.models.layers.patches import as_tokens

LAYERS = 2
"""Of a level on the way down; on the way up there is one more."""


class WayDown(nn.Module):
    """Noisy latent -> what every layer gave (the skip connections), and the middle.

    Args:
        heads: attention heads of the levels; the last level has attention only in the middle.
        context: width of the text; 0 for a network without text.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], heads: Sequence[int], context: int, linear: bool = False
    ) -> None:
        super().__init__()
        emb, last = 4 * widths[0], len(widths) - 1
        self.widths = tuple(widths)
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], emb)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            ins = [widths[max(i - 1, 0)], *[width] * (LAYERS - 1)]
            level = Level(ins, width, emb, heads[i] if i < last else 0, context, linear)
            if i < last:
                level.add_module("downsamplers", nn.ModuleList([Downsample(width)]))
            self.down_blocks.append(level)
        self.mid_block = Level([widths[-1]] * 2, widths[-1], emb, heads[-1], context, linear, attentions=1)

    def down(
        self, latent: Tensor, embedding: Tensor, text: Tensor | None, guides: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """The middle and the skip connections, first to last.

        Args:
            guides: one map a level for its first layer, where that layer takes one.
        """
        x = self.conv_in(latent)
        skips = [x]
        for level, block in enumerate(levels(self.down_blocks)):
            for i in range(LAYERS):
                x = block.layer(i, x, embedding, text, *(guides[level : level + 1] if i == 0 else ()))
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.layer(0, x, embedding, text)
        return self.mid_block.resnets[1](x, embedding), skips

    def control_shapes(self, latent: int) -> list[tuple[int, ...]]:
        """Shapes of the residuals that a control network gives for latents of an edge: every skip connection, then the middle."""
        found, edge = [(1, self.widths[0], latent, latent)], latent
        for i, width in enumerate(self.widths):
            found += [(1, width, edge, edge)] * LAYERS
            if i < len(self.widths) - 1:
                edge //= 2
                found.append((1, width, edge, edge))
        return [*found, found[-1]]


class TimeEmbedding(nn.Module):
    """Cosines and sines of a number (N,) at ``width / 2`` frequencies, through an MLP to (N, out)."""

    _frequencies: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, out), nn.Linear(out, out)
        half = width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        self.register_buffer("_frequencies", frequencies, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        phases = value[:, None] * self._frequencies
        waves = torch.cat((phases.cos(), phases.sin()), 1)
        return self.linear_2(F.silu(self.linear_1(waves)))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Layers of one resolution: a residual block each, followed by attention where ``heads`` is not 0."""

    downsamplers: nn.ModuleList
    upsamplers: nn.ModuleList

    def __init__(
        self,
        ins: Sequence[int],
        width: int,
        embedding: int,
        heads: int,
        context: int,
        linear: bool,
        attentions: int | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResNet(i, width, embedding) for i in ins)
        if heads:
            count = len(ins) if attentions is None else attentions
            self.attentions = nn.ModuleList(Transformer(width, heads, context, linear) for _ in range(count))

    def layer(self, i: int, x: Tensor, embedding: Tensor, text: Tensor | None, *guide: Tensor) -> Tensor:
        x = self.resnets[i](x, embedding, *guide)
        return self.attentions[i](x, text) if hasattr(self, "attentions") else x  # type: ignore[no-any-return]


def levels(blocks: nn.ModuleList) -> list[Level]:
    """The levels of a list, by their type."""
    return [block for block in blocks if isinstance(block, Level)]


class Transformer(nn.Module):
    """One transformer block over the pixels of (N, width, h, w): to each other, to the text, gated MLP."""

    def __init__(self, width: int, heads: int, context: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(GROUPS, width, 1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([Block(width, heads, context)])

    def forward(self, x: Tensor, text: Tensor | None) -> Tensor:
        size = x.shape[2:]
        y = self.norm(x)
        pixels = self.proj_in(as_tokens(y)) if self.linear else as_tokens(self.proj_in(y))
        pixels = self.transformer_blocks[0](pixels, text)
        if self.linear:
            return x + self.proj_out(pixels).transpose(-2, -1).unflatten(2, size)  # type: ignore[no-any-return]
        return x + self.proj_out(pixels.transpose(-2, -1).unflatten(2, size))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Without text the second attention is to the pixels once more, as in ``diffusers``."""

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attn1, self.attn2 = Attention(dim, heads), Attention(dim, heads, context or None)
        self.ff = GatedMLP(dim, dim)

    def forward(self, x: Tensor, text: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """(..., dim) -> (..., out) over ``times * dim`` gated values."""

    def __init__(self, dim: int, out: int, times: int = 4) -> None:
        super().__init__()
        # The middle entry was a dropout.
        self.net = nn.Sequential(Gate(dim, times * dim), nn.Identity(), nn.Linear(times * dim, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Gate(nn.Module):
    """(..., dim) -> (..., out): one half of a projection, gated by the other."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, -1)
        return values * F.gelu(gate)  # type: ignore[no-any-return]
