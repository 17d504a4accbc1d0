"""What the ViT families share: timm's block with the MAE settings, pooling, head, and what a checkpoint says of the two.

Sources: Dosovitskiy et al. 2021 (ViT), He et al. 2022 (MAE: LayerNorm with eps 1e-6, mean pooling followed by ``fc_norm``).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.features import Features, Shape, numbered, tokens, vectors

Pool = Literal["token", "avg"]


norm = partial(nn.LayerNorm, eps=1e-6)


def block(dim: int, heads: int) -> Block:
    """Pre-norm attention and a 4x GELU MLP."""
    return Block(dim, heads, qkv_bias=True, norm_layer=norm)


class Encoder(nn.Module):
    """Blocks, pooling and head over tokens (N, L, dim), of which the first is the class token.

    Args:
        pool: ``token``: ``norm``, then the class token; ``avg``: the mean of the other tokens, then ``fc_norm``.
        classes: 0 for none: the pooled features (N, dim) come out.
    """

    def __init__(self, dim: int, depth: int, heads: int, pool: Pool = "token", classes: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.blocks = nn.Sequential(*(block(dim, heads) for _ in range(depth)))
        if pool == "avg":
            self.fc_norm = norm(dim)
        else:
            self.norm = norm(dim)
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens with positions -> features (N, dim) or logits (N, classes)."""
        tokens = self.blocks(tokens)
        pooled = self.fc_norm(tokens[:, 1:].mean(1)) if self.pool == "avg" else self.norm(tokens)[:, 0]
        return self.head(pooled)  # type: ignore[no-any-return]


def encoder_features(net: Encoder, shape: Shape, patch: int, planes: int) -> Features:
    """The blocks and the norm of an encoder over ``planes`` grids of patches behind a class token."""
    first: Any = net.blocks[0]
    dim = first.norm1.normalized_shape[0]
    blocks = numbered("blocks", len(net.blocks))
    if net.pool == "avg":
        return (*tokens(blocks, dim, shape, patch, 1, planes), *vectors(("fc_norm", dim)))
    return tokens([*blocks, "norm"], dim, shape, patch, 1, planes)


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """A head of the checkpoint's classes, and mean pooling where it has ``fc_norm`` (fine-tuned MAE) instead of ``norm``."""
    found = dict(arch)
    if "head.weight" in shapes:
        found["classes"] = shapes["head.weight"][0]
    if "fc_norm.weight" in shapes:
        found["pool"] = "avg"
    return found


def embedding(*shape: int) -> nn.Parameter:
    """A learned embedding, normally distributed with a deviation of 0.02."""
    return nn.Parameter(torch.randn(*shape) * 0.02)
