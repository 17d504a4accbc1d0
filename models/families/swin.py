"""Swin Transformers in timm's layout: GFM, RingMo-Swin.

Source: Liu et al. 2021. The original code keeps a stage's downsampling at its end, timm at the next one's beginning; rows
rename it. timm computes attention masks and bias indices itself, so those of a checkpoint are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.swin_transformer import SwinTransformer
from torch import nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape
from rsedge.models.library_features import timm_maps


def build(
    bands: int, tile: int, window: int, dim: int, depths: Sequence[int], heads: Sequence[int], classes: int = 0
) -> nn.Module:
    """x (N, bands, tile, tile) -> pooled features (N, 8 * dim) or logits (N, classes)."""
    return SwinTransformer(
        img_size=tile, patch_size=4, in_chans=bands, num_classes=classes, embed_dim=dim, depths=tuple(depths),
        num_heads=tuple(heads), window_size=window,
    )  # fmt: skip


def features(net: nn.Module, shape: Shape) -> Features:
    """The four stages, as timm declares them."""
    return timm_maps(net, "NHWC")


FAMILY = Family(build, features=features)
