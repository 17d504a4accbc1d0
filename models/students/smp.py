"""Dense students of segmentation-models-pytorch over its own or timm's encoders (``tu-NAME``), without downloaded weights.

All take x (N, bands, H, W) normalised and give logits (N, classes, H, W); H and W are multiples of 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import nn


def unet(bands: int, classes: int, encoder: str, decoder: Sequence[int] = (128, 64, 32, 16, 16)) -> nn.Module:
    """U-Net (Ronneberger et al. 2015)."""
    net: nn.Module = smp.Unet(
        encoder, encoder_weights=None, in_channels=bands, classes=classes, decoder_channels=tuple(decoder),
        encoder_depth=len(decoder),
    )  # fmt: skip
    return net


def fpn(bands: int, classes: int, encoder: str, width: int = 64) -> nn.Module:
    """Feature pyramid (Kirillov et al. 2019); ``width`` channels per level."""
    net: nn.Module = smp.FPN(
        encoder, encoder_weights=None, in_channels=bands, classes=classes, decoder_pyramid_channels=width,
        decoder_segmentation_channels=width, decoder_dropout=0.0,
    )  # fmt: skip
    return net


def deeplab(bands: int, classes: int, encoder: str, width: int = 64) -> nn.Module:
    """DeepLabv3+ (Chen et al. 2018); ``width`` channels of the decoder."""
    net: nn.Module = smp.DeepLabV3Plus(
        encoder, encoder_weights=None, in_channels=bands, classes=classes, decoder_channels=width,
    )  # fmt: skip
    return net
