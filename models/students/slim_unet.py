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
Skips = Literal["concat", "sum"]


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
        skips: how a decoder stage takes the encoder's features: ``concat``, beside the coarser ones, or ``sum``: the coarser
            ones come to their width by a 1x1 convolution before they are enlarged, and are added (Lin et al. 2017, feature
            pyramids). A sum leaves the 3x3 convolution about half of its inputs and needs no concatenation, which OpenVINO's
            CPU plugin does by a reference kernel.
    """

    def __init__(
        self,
        bands: int,
        stem: int,
        encoder: Sequence[int],
        blocks: Sequence[int],
        decoder: Sequence[int],
        skips: Skips = "concat",
    ) -> None:
        super().__init__()
        if skips not in get_args(Skips):
            raise RequestError(f"student: skips is {' or '.join(get_args(Skips))}, not '{skips}'")
        if not len(encoder) == len(blocks) >= len(decoder) > 0:
            raise RequestError("student: encoder and blocks need one entry per stage, decoder at most as many")
        self.stem = conv_bn_relu(bands, stem, 3, 2)
        widths = [stem, *encoder]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_bn_relu(a, b, 3, 2), *(ResidualBlock(b) for _ in range(n)))
            for a, b, n in zip(widths[:-1], widths[1:], blocks, strict=True)
        )
        finer = widths[-2::-1][: len(decoder)]
        coarser = [widths[-1], *decoder[:-1]]
        summed = skips == "sum"
        self.laterals = nn.ModuleList(
            nn.Conv2d(a, b, 1, bias=False) for a, b in zip(coarser, finer, strict=True) if summed
        )
        self.decoder = nn.ModuleList(
            conv_bn_relu(b if summed else a + b, d) for a, b, d in zip(coarser, finer, decoder, strict=True)
        )

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
        for number, (stage, skip) in enumerate(zip(self.decoder, skips[: -len(self.decoder) - 1 : -1], strict=True)):
            y = stage(self._joined(number, y, skip))
            found.append(y)
        return found

    def _joined(self, number: int, coarse: Tensor, skip: Tensor) -> Tensor:
        """What a decoder stage takes: features at half the resolution of the skip, enlarged, with the skip."""
        if self.laterals:
            return F.interpolate(self.laterals[number](coarse), scale_factor=2.0, mode="nearest") + skip
        return torch.cat([F.interpolate(coarse, scale_factor=2.0, mode="nearest"), skip], dim=1)


def _width(layers: nn.Module) -> int:
    """Channels of :func:`conv_bn_relu`, as they are now: pruning takes some."""
    return int(layers.get_submodule("0").out_channels)  # type: ignore[arg-type]


class SlimUNet(SlimFeatures):
    """Dense prediction: x (N, bands, H, W) normalised -> logits (N, classes, H, W); H and W multiples of 2 ** (stages + 1).

    Args:
        stem: channels at half resolution.
        encoder: channels after each further halving.
        blocks: residual blocks per encoder stage.
        decoder: channels of the decoder stages, coarse to fine; one per encoder stage.
        upsample: how logits at half resolution come to full: ``bilinear``, or ``shuffle``: four logits per class, laid out
            as 2x2 pixels (sub-pixel convolution, Shi et al. 2016).
        skips: how a decoder stage takes the encoder's features: ``concat``, or ``sum`` (:class:`SlimFeatures`).

    ``upsample: shuffle`` and ``skips: sum`` are the faster ones on OpenVINO's CPU plugin, whose bilinear enlargement of float
    logits and concatenation take a fifth of such a student's INT8 time; ``recipes/cloud-mask.yaml`` has both.
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
        skips: Skips = "concat",
    ) -> None:
        if len(decoder) != len(encoder):
            raise RequestError("student slim-unet: encoder, blocks and decoder need one entry per stage each")
        if upsample not in get_args(Upsample):
            raise RequestError(f"student: upsample is {' or '.join(get_args(Upsample))}, not '{upsample}'")
        super().__init__(bands, stem, encoder, blocks, decoder, skips)
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
