"""AV-ResNet of SoundingEarth: a ResNet of unusual widths over images and spectrograms, and one in one dimension over sound.

Source: Heidler et al. 2023, "Self-supervised audiovisual representation learning for remote sensing data". The widths differ
between versions of the authors' code (the released one has 182 channels in its second stage), so they are read off the file.
The tower's last layer is a 1x1 convolution before the mean over the map; in one dimension it comes after it. There the time steps
of a spectrogram are the channels, and convolution runs along its frequencies: so the authors' code turns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Layout, Shape


class Block1d(nn.Module):
    """A residual block over (N, C, T), in torchvision's names: two convolutions, or three where ``bottleneck``."""

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: nn.Module | None, bottleneck: bool) -> None:
        super().__init__()
        outputs = planes * 4 if bottleneck else planes
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        widths = [inputs, planes, planes, outputs] if bottleneck else [inputs, planes, planes]
        self.steps = len(sizes)
        for i, (kernel, step) in enumerate(sizes):
            conv = nn.Conv1d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm1d(widths[i + 1]))
        self.relu = nn.ReLU()
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.steps + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = self.relu(y) if i < self.steps else y
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


class Tower(nn.Module):
    """Images (N, bands, H, W), or where ``line`` spectra over time (N, bands, frequencies), -> embedding (N, out).

    Args:
        bands: channels: of images, or the number of time steps.
        line: convolution runs along one dimension, the frequencies.
        layers, planes: blocks and inner width of the four stages.
        bottleneck: blocks of three convolutions, four times as wide outside.
    """

    def __init__(
        self,
        bands: int,
        line: bool,
        layers: Sequence[int],
        planes: Sequence[int],
        bottleneck: bool,
        stem: int,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.line, self.bottleneck, self.planes = line, bottleneck, tuple(planes)
        conv: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if line else nn.Conv2d
        self.conv1 = conv(bands, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm1d(stem) if line else nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool1d(3, 2, 1) if line else nn.MaxPool2d(3, 2, 1)
        channels = stem
        for index, (count, width) in enumerate(zip(layers, planes, strict=True)):
            stride = 1 if index == 0 else 2
            blocks: list[nn.Module] = []
            for number in range(count):
                blocks.append(self._block(channels, width, stride if number == 0 else 1))
                channels = width * (4 if bottleneck else 1)
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = conv(channels, out, 1)

    def _block(self, inputs: int, planes: int, stride: int) -> nn.Module:
        outputs = planes * (4 if self.bottleneck else 1)
        conv: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if self.line else nn.Conv2d
        shortcut = None
        if stride != 1 or inputs != outputs:
            norm = nn.BatchNorm1d(outputs) if self.line else nn.BatchNorm2d(outputs)
            shortcut = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm)
        if self.line:
            return Block1d(inputs, planes, stride, shortcut, self.bottleneck)
        block: nn.Module = (Bottleneck if self.bottleneck else BasicBlock)(inputs, planes, stride, shortcut)
        return block

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        if self.line:
            return self.fc(x.mean(-1, keepdim=True))[..., 0]  # type: ignore[no-any-return]
        return self.fc(x).mean((2, 3))  # type: ignore[no-any-return]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Widths."""
    stages = [f"layer{i}.0.conv1.weight" for i in range(1, 5)]
    if any(name not in shapes for name in ("conv1.weight", "fc.weight", *stages)):
        return arch
    found: dict[str, Any] = {
        "stem": shapes["conv1.weight"][0], "out": shapes["fc.weight"][0], "planes": [shapes[name][0] for name in stages],
    }  # fmt: skip
    return arch | found


def features(net: nn.Module, shape: Shape) -> Features:
    """The four stages; in one dimension they are lines along the frequencies."""
    assert isinstance(net, Tower)
    layout: Layout = "NCL" if net.line else "NCHW"
    return tuple(
        Feature(f"layer{i + 1}", width * (4 if net.bottleneck else 1), layout, 4 * 2**i)
        for i, width in enumerate(net.planes)
    )


FAMILY = Family(Tower, fit, features=features)
