"""RVSA's segmenters: its feature pyramid and UPerNet's head, as mmsegmentation saves them.

Source: Wang et al. 2022 (TGRS), Xiao et al. 2018 (ECCV). The head that training puts beside (``auxiliary_head``) is no part of the
network that flies.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.families.rvsa import STRIDES, RVSAPyramid, fit_pyramid
from rsedge.models.features import Features, Shape, inside, maps
from rsedge.models.layers.upernet import UPerHead, enlarged

TAPS = (3, 5, 7, 11)
"""Blocks of which the four maps are made, the finest first."""


class RVSAUperNet(nn.Module):
    """x (N, bands, image, image) -> logits (N, classes, image, image); ``pyramid`` as :class:`RVSAPyramid` has it."""

    def __init__(self, classes: int, image: int, dim: int = 768, width: int = 512, **pyramid: Any) -> None:
        super().__init__()
        self.backbone = RVSAPyramid(image, dim=dim, **{"taps": TAPS, **pyramid})
        self.decode_head = UPerHead([dim] * len(STRIDES), self.backbone.grid // 2, classes, width)

    def forward(self, x: Tensor) -> Tensor:
        return enlarged(self.decode_head(self.backbone(x)), x)


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The checkpoint's classes beside what :func:`fit_pyramid` reads."""
    head = shapes.get("decode_head.conv_seg.weight")
    return {**fit_pyramid(arch, shapes), **({"classes": head[0]} if head else {})}


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's image size."""
    return spec.model_copy(update={"tile": arch["image"]})


def features(net: nn.Module, shape: Shape) -> Features:
    """The pyramid's, and what the head makes of them before the classes."""
    assert isinstance(net, RVSAUperNet)
    width = net.decode_head.conv_seg.in_channels
    return (*inside("backbone", net.backbone.features(shape)), *maps(("decode_head.fpn_bottleneck", STRIDES[0], width)))


FAMILY = Family(RVSAUperNet, fit, contract=contract, features=features)
