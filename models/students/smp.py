"""Dense students of segmentation-models-pytorch over timm encoders, without downloaded weights."""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import nn


def unet(bands: int, classes: int, encoder: str, decoder: Sequence[int] = (128, 64, 32, 16, 16)) -> nn.Module:
    """U-Net: x (N, bands, H, W) normalised -> logits (N, classes, H, W)."""
    net: nn.Module = smp.Unet(
        encoder, encoder_weights=None, in_channels=bands, classes=classes, decoder_channels=tuple(decoder),
        encoder_depth=len(decoder),
    )  # fmt: skip
    return net
