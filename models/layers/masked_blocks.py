"""Transformer blocks that leave missing tokens out, for the pixel time series families.

The authors cut missing tokens away, so the number of tokens depends on the data. Here a missing token stays, but nothing
attends to it and no mean counts it, which gives the same numbers in a graph of fixed shape.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsedge.models.layers.attention import attend, parted, split
from rsedge.models.layers.mlp import mlp

FAR = -1e4
"""Added to the attention scores of missing tokens: its exponential is 0, and it fits half precision."""


class Attention(nn.Module):
    """Multi-head self-attention (N, L, dim) -> same; query, key and value in one layer ``qkv`` or in three.

    What timm's blocks pass beside the tokens is not used. Queries and keys, and values, may lose dimensions of their heads: scores
    are scaled by the width that heads were built with.
    """

    head_widths_free = True

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (dim // heads) ** -0.5
        if fused:
            self.qkv = nn.Linear(dim, 3 * dim)
        else:
            self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None, **_: object) -> Tensor:
        values = self.proj.in_features
        parts = parted(self.qkv(x), self.qkv, values) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (split(part, self.heads) for part in parts)
        return self.proj(attend(q, k, v, bias, self.scale))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm attention and a 4x GELU MLP, in timm's names."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, fused)
        self.mlp = mlp(dim, 4 * dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), bias)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def attention_bias(present: Tensor) -> Tensor:
    """Presence of tokens (N, L), 1 or 0 -> what to add to attention scores (N, 1, 1, L)."""
    return ((1 - present) * FAR)[:, None, None]


def attention_bias_of_sizes(sizes: Tensor) -> Tensor:
    """How many tokens each stands for (N, L), 0 where it is missing -> as :func:`attention_bias`: a token of three is attended to
    as three alike would be (Bolya et al. 2023, "Token Merging", proportional attention)."""
    return torch.where(sizes > 0, sizes.clamp(min=1.0).log(), FAR)[:, None, None]


def mean_of_present(tokens: Tensor, present: Tensor) -> Tensor:
    """Mean over tokens (N, L, dim) that are there, or weighted by how many each stands for -> (N, dim)."""
    return (tokens * present[..., None]).sum(1) / present.sum(1, keepdim=True)
