"""What all attention layers do between their projections, whatever the names of these in checkpoints.

Two ways to the same numbers. torch's own is faster there and takes less memory; written out as products it is three nodes a layer
less in ONNX (the exporter scales queries and keys apart). Each family stays with the one that its full-size figures were measured
with.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def split(x: Tensor, heads: int) -> Tensor:
    """(N, L, C) -> (N, heads, L, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call, no-any-return]


def parted(made: Tensor, layer: nn.Linear, values: int) -> tuple[Tensor, ...]:
    """Queries, keys and values from what ``layer`` makes of all three (N, L, C); ``values`` channels of it are values."""
    keys = (layer.out_features - values) // 2
    return made.split((keys, keys, values), dim=-1)


def joined(x: Tensor) -> Tensor:
    """(N, heads, L, C) -> (N, L, heads * C)."""
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Values (N, heads, M, C) weighed for each query (N, heads, L, C) by torch's own attention -> (N, L, heads * C).

    Args:
        bias: what is added to the scores, broadcast to (N, heads, L, M).
        scale: what queries are multiplied by; 1 / sqrt(C) where not given.
    """
    return joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale))


def attend_by_products(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """As :func:`attend`, written out; queries are multiplied by ``scale``."""
    scores = q * scale @ k.transpose(-2, -1)
    return joined((scores if bias is None else scores + bias).softmax(-1) @ v)
