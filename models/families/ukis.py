"""UKIS cloud and shadow U-Nets: ``segmentation_models_pytorch.Unet("efficientnet-b4")``.

Source: Wieland, Fichtner & Martinis (2022), "UKIS-CSMASK". The wheel holds ONNX graphs whose initialisers carry that
module's names.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape
from rsedge.models.library_features import smp_maps


def build(bands: int, classes: int) -> nn.Module:
    """x (N, bands, H, W) -> logits (N, classes, H, W), H and W multiples of 32."""
    import segmentation_models_pytorch as smp

    net: Any = smp.Unet("efficientnet-b4", encoder_weights=None, in_channels=bands, classes=classes)
    # Never called by the U-Net; without them the parameter count is that of the published graph.
    net.encoder._conv_head, net.encoder._bn1 = nn.Identity(), nn.Identity()
    return net


def features(net: nn.Module, shape: Shape) -> Features:
    """The encoder's levels and the decoder's map, as segmentation-models-pytorch declares them."""
    return smp_maps(net)


FAMILY = Family(build, features=features)
