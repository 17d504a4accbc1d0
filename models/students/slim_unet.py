"""``slim-unet``, made for integer inference on CPUs and Jetsons: plain 3x3 convolutions with ReLU (no squeeze-excite, no
depthwise convolutions, whose integer kernels are bound by memory), a stride-2 stem, and logits at half resolution that are
enlarged bilinearly. Architecture after U-Net (Ronneberger et al. 2015) with residual blocks (He et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.features import Features, Shape, maps

Upsample = Literal["bilinear", "shuffle"]


def conv_bn_relu(cin: int, cout: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU: fused into one integer kernel by every runtime."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: (N, C, H, W) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(channels, channels)
        self.conv2 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(self.conv1(x)))


class SlimFeatures(nn.Module):
    """Encoder and decoder with skips: x (N, bands, H, W) -> features at strides 2, 4, ...; H and W multiples of the last.

    Args:
        stem: channels at half resolution.
        encoder: channels after each further halving.
        blocks: residual blocks per encoder stage.
        decoder: channels of the decoder stages, coarse to fine; at most one per encoder stage.
    """

    def __init__(
        self, bands: int, stem: int, encoder: Sequence[int], blocks: Sequence[int], decoder: Sequence[int]
    ) -> None:
        super().__init__()
        if not len(encoder) == len(blocks) >= len(decoder) > 0:
            raise RequestError("student: encoder and blocks need one entry per stage, decoder at most as many")
        self.stem = conv_bn_relu(bands, stem, 3, 2)
        widths = [stem, *encoder]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_bn_relu(a, b, 3, 2), *(ResidualBlock(b) for _ in range(n)))
            for a, b, n in zip(widths[:-1], widths[1:], blocks, strict=True)
        )
        skips = widths[-2::-1][: len(decoder)]
        inputs = [widths[-1], *decoder[:-1]]
        self.decoder = nn.ModuleList(conv_bn_relu(a + s, d) for a, s, d in zip(inputs, skips, decoder, strict=True))

    def feature_contract(self, shape: Shape) -> Features:
        """The stem and all stages (:mod:`rsedge.models.published`)."""
        coarsest = 2 ** (len(self.encoder) + 1)
        return maps(
            ("stem", 2, _width(self.stem)),
            *((f"encoder.{i}", 4 * 2**i, _width(stage[0])) for i, stage in enumerate(self.encoder)),  # type: ignore[index]
            *((f"decoder.{i}", coarsest // 2 ** (i + 1), _width(stage)) for i, stage in enumerate(self.decoder)),
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features, fine to coarse: strides 2, 4, ..."""
        features = [self.stem(x)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        return features

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """Features of :meth:`encode` -> those of the decoder stages, coarse to fine."""
        *skips, y = features
        found = []
        for stage, skip in zip(self.decoder, skips[: -len(self.decoder) - 1 : -1], strict=True):
            y = stage(torch.cat([F.interpolate(y, scale_factor=2.0, mode="nearest"), skip], dim=1))
            found.append(y)
        return found


def _width(layers: nn.Module) -> int:
    """Channels of :func:`conv_bn_relu`, as they are now: pruning takes some."""
    return int(layers.get_submodule("0").out_channels)  # type: ignore[arg-type]


class SlimUNet(SlimFeatures):
    """Dense prediction: x (N, bands, H, W) normalised -> logits (N, classes, H, W); H and W multiples of 2 ** (stages + 1).

    Args:
        stem, encoder, blocks, decoder: of :class:`SlimFeatures`; one decoder stage per encoder stage.
        upsample: how logits at half resolution come to full: ``bilinear``, or ``shuffle``: four logits per class, laid out
            as 2x2 pixels (sub-pixel convolution, Shi et al. 2016).
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        stem: int = 16,
        encoder: Sequence[int] = (32, 48, 64, 96),
        blocks: Sequence[int] = (1, 1, 1, 1),
        decoder: Sequence[int] = (64, 48, 32, 16),
        upsample: Upsample = "bilinear",
    ) -> None:
        if len(decoder) != len(encoder):
            raise RequestError("student slim-unet: encoder, blocks and decoder need one entry per stage each")
        if upsample not in get_args(Upsample):
            raise RequestError(f"student: upsample is {' or '.join(get_args(Upsample))}, not '{upsample}'")
        super().__init__(bands, stem, encoder, blocks, decoder)
        self.upsample = upsample
        self.head = nn.Conv2d(decoder[-1], classes * (4 if upsample == "shuffle" else 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.encode(x))

    def logits(self, features: list[Tensor]) -> Tensor:
        """Features of :meth:`encode` -> logits at full resolution."""
        y = self.head(self.decode(features)[-1])
        if self.upsample == "shuffle":
            return F.pixel_shuffle(y, 2)
        return F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
