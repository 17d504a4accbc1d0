"""Plain ViTs in timm's layout: SatMAE and SatMAE++ RGB, RingMo-ViT, SSL4EO-L, and parallel blocks (Billion-scale FM).

Sources: Dosovitskiy et al. 2021; Touvron et al. 2022, "Three things everyone should know about Vision Transformers" (parallel
blocks), as used by Cha et al. 2023, "A billion-scale foundation model for remote sensing images".
"""

from __future__ import annotations

from functools import partial

from timm.models.vision_transformer import ParallelThingsBlock, VisionTransformer
from torch import nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, numbered, tokens
from rsedge.models.layers.vit_blocks import Pool, fit


def build(
    bands: int,
    tile: int,
    patch: int,
    dim: int,
    depth: int,
    heads: int,
    pool: Pool = "token",
    classes: int = 0,
    parallel: int = 1,
) -> nn.Module:
    """x (N, bands, tile, tile) -> features (N, dim) or logits (N, classes).

    Args:
        parallel: attention branches, and after them MLP branches, side by side in each block.
    """
    more = {} if parallel == 1 else {"block_fn": partial(ParallelThingsBlock, num_parallel=parallel)}
    return VisionTransformer(
        img_size=tile, patch_size=patch, in_chans=bands, num_classes=classes, global_pool=pool, embed_dim=dim,
        depth=depth, num_heads=heads, qkv_bias=True, **more,
    )  # fmt: skip


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks."""
    assert isinstance(net, VisionTransformer)
    blocks = numbered("blocks", len(net.blocks))
    return tokens(blocks, net.embed_dim, shape, net.patch_embed.patch_size[0], net.num_prefix_tokens)


FAMILY = Family(build, fit, features=features)
