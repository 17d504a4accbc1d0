"""Swin Transformers in timm's layout: GFM, RingMo-Swin.

Source: Liu et al. 2021. The original code keeps a stage's downsampling at its end, timm at the next one's beginning; rows
rename it. timm computes attention masks and bias indices itself, so those of a checkpoint are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from timm.models.swin_transformer import SwinTransformer
from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
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


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """A head of the checkpoint's classes, and its window, which goes with its image size: users change both."""
    found = dict(arch)
    if "head.fc.weight" in shapes:
        found["classes"] = shapes["head.fc.weight"][0]
    table = shapes.get("layers.0.blocks.0.attn.relative_position_bias_table")
    if table is not None:
        found["window"] = (math.isqrt(table[0]) + 1) // 2
        found["tile"] = arch["tile"] // arch["window"] * found["window"]
    return found


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's image size."""
    return spec.model_copy(update={"tile": arch["tile"]})


def features(net: nn.Module, shape: Shape) -> Features:
    """The four stages, as timm declares them."""
    return timm_maps(net, "NHWC")


FAMILY = Family(build, fit, contract=contract, features=features)
