"""DeepLabv3+ on a dilated ResNet: the network that GLCNet pretrains.

Sources: Chen et al. 2018 (DeepLabv3+); Li et al. 2022, "Global and local contrastive self-supervised learning for semantic
segmentation of HR remote sensing images". Kept from the authors' code: every block of the last ResNet stage is dilated (timm
and torchvision leave the first one), and enlarging aligns corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family, resnet
from rsedge.models.features import Features, Shape, inside, maps

RATES = (6, 12, 18)


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: (N, cin, H, W) -> (N, 5 * width, H, W)."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self._atrous_convolution1 = _conv_bn(cin, width, 1)
        self._atrous_convolution2, self._atrous_convolution3, self._atrous_convolution4 = (
            _conv_bn(cin, width, 3, rate) for rate in RATES
        )
        self._image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_bn(cin, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self._atrous_convolution1, self._atrous_convolution2, self._atrous_convolution3, self._atrous_convolution4,
        )  # fmt: skip
        # Enlarging one pixel copies it, whatever the interpolation.
        pooled = self._image_pool(x).expand(-1, -1, x.shape[2], x.shape[3])
        return torch.cat([*(branch(x) for branch in branches), pooled], 1)


class Encoder(nn.Module):
    """The pyramid and what joins it: (N, cin, H, W) -> (N, width, H, W)."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.ASPP = Aspp(cin, width)
        self.conv1 = nn.Conv2d(5 * width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(self.ASPP(x))))


class Decoder(nn.Module):
    """Coarse (N, width, h, w) and fine (N, fine, H, W) features -> logits (N, classes, H, W); without classes what the head would
    take, (N, width, H, W)."""

    def __init__(self, fine: int, width: int, classes: int, skip: int = 48) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fine, skip, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(skip)
        self.conv2 = nn.Conv2d(width + skip, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(width, classes, 1) if classes else nn.Identity()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        fine = F.relu(self.bn1(self.conv1(fine)))
        x = torch.cat([_enlarge(coarse, (fine.shape[2], fine.shape[3])), fine], 1)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.conv4(F.relu(self.bn3(self.conv3(x))))  # type: ignore[no-any-return]


class DeepLab(nn.Module):
    """x (N, bands, H, W) -> logits (N, classes, H, W); H and W multiples of 16.

    Without classes features (N, pyramid): the mean over the decoder's map, or over the encoder's where there is no ``decoder``.
    """

    def __init__(
        self,
        bands: int,
        depth: int,
        classes: int,
        layers: Sequence[int] | None = None,
        width: int = 64,
        pyramid: int = 256,
        decoder: bool = True,
    ) -> None:
        super().__init__()
        self.backbone: Any = resnet.build(bands, depth, 0, layers, width, stride=16)
        first: Any = self.backbone.layer4[0]  # type: ignore[index]
        first.conv2.dilation = first.conv2.padding = (2, 2)
        self.encoder = Encoder(32 * width, pyramid)
        self.decoder = Decoder(4 * width, pyramid, classes) if decoder else None
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        body = self.backbone
        fine = body.layer1(body.maxpool(body.act1(body.bn1(body.conv1(x)))))
        coarse: Tensor = self.encoder(body.layer4(body.layer3(body.layer2(fine))))
        decoded: Tensor = coarse if self.decoder is None else self.decoder(coarse, fine)
        return _enlarge(decoded, (x.shape[2], x.shape[3])) if self.classes else decoded.mean((2, 3))


def _conv_bn(cin: int, cout: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate if kernel > 1 else 0
    conv = nn.Conv2d(cin, cout, kernel, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())


def _enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The checkpoint's classes, none where it has no head, whether there is a decoder, and its backbone: ResNet-50 or 101."""
    found = {
        **arch,
        "classes": shapes.get("decoder.conv4.weight", (0,))[0],
        "decoder": "decoder.conv1.weight" in shapes,
    }
    return {**found, "depth": 101} if "backbone.layer3.22.conv1.weight" in shapes else found


def features(net: nn.Module, shape: Shape) -> Features:
    """The backbone's stages, the pyramid and what the decoder gives: logits before they are enlarged."""
    assert isinstance(net, DeepLab)
    wide = net.encoder.conv1.out_channels
    head = net.classes or wide
    stages = [f for f in resnet.features(net.backbone, shape) if f.name.startswith("layer")]
    decoder = [] if net.decoder is None else [("decoder", 4, head)]
    return (*inside("backbone", tuple(stages)), *maps(("encoder", 16, wide), *decoder))


FAMILY = Family(DeepLab, fit, features=features)
