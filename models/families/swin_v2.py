"""Swin Transformers V2 in torchvision's layout: SatlasPretrain.

Source: Liu et al. 2022, "Swin Transformer V2"; Bastani et al. 2023, "SatlasPretrain".
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from rsedge.models.families import Family


def build(bands: int, dim: int, depths: Sequence[int], heads: Sequence[int], window: int = 8) -> nn.Module:
    """x (N, bands, H, W) -> pooled features (N, 8 * dim); H and W multiples of 32 * window fit without padding."""
    net = SwinTransformer(
        patch_size=[4, 4], embed_dim=dim, depths=list(depths), num_heads=list(heads), window_size=[window, window],
        num_classes=1, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2,
    )  # fmt: skip
    if bands != 3:
        net.features[0][0] = nn.Conv2d(bands, dim, 4, 4)
    net.head = nn.Identity()
    return net


FAMILY = Family(build)
