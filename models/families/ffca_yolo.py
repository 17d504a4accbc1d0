"""FFCA-YOLO and its lighter L-FFCA-YOLO: small-object detectors on the frame of YOLOv5m with heads at strides 4, 8 and 16.

Source: Zhang et al. 2024, "FFCA-YOLO for Small Object Detection in Remote Sensing Images" (TGRS). Feature enhancement (FEM,
dilated branches), feature fusion (FFM, weighted concatenation), spatial context (SCAM). The light variant has partial
convolutions (Chen et al. 2023, FasterNet) in its CSP blocks. Layer numbers are those of the authors' model file, so
parameters have the names of their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, maps
from rsedge.models.parts import Part

STRIDES = (4, 8, 16)
ANCHORS = 3
_BN_EPS = 1e-3
"""YOLOv5 sets it on every batch normalisation after building."""


class FFCAYolo(nn.Module):
    """x (N, 3, image, image), 0 to 1 -> candidates (N, A, 5 + classes): centre x, y, width, height (pixels), objectness and
    class scores (0 to 1). A is three per cell of all three maps; suppressing overlaps is the host's work
    (:mod:`rsedge.runtimes.inference.boxes`)."""

    def __init__(
        self,
        classes: int,
        image: int = 640,
        light: bool = False,
        width: float = 0.75,
        depth: float = 0.67,
        bands: int = 3,
    ) -> None:
        super().__init__()
        self.bands, self.image = bands, image
        w64, w128, w256, w512 = (int(-(-c * width // 8)) * 8 for c in (64, 128, 256, 512))
        n3, n6, n9 = (max(round(n * depth), 1) for n in (3, 6, 9))
        # Where each layer reads from: -1 is the layer before, -2 the one before that, other numbers are layers.
        table: list[tuple[int | Sequence[int], nn.Module]] = [
            (-1, Conv(bands, w64, 6, 2, 2)),
            (-1, Conv(w64, w128, 3, 2)),
            (-1, CSP(w128, w128, n6, light)),
            (-1, FEM(w128)),
            (2, Conv(w128, w256, 3, 2)),
            (-1, CSP(w256, w256, n6, light)),
            (-1, FEM(w256)),
            (5, Conv(w256, w512, 3, 2)),
            (-1, CSP(w512, w512, n9, light)),
            (-1, SPPF(w512)),
            (-1, Conv(w512, w256)),
            (-1, nn.Upsample(scale_factor=2, mode="nearest")),
            ((-1, 6), FFM(2 * w256)),
            (-1, CSP(2 * w256, w256, n3, light, shortcut=False)),
            (-1, Conv(w256, w128)),
            (-1, nn.Upsample(scale_factor=2, mode="nearest")),
            ((-1, 3), FFM(2 * w128)),
            (-1, CSP(2 * w128, w128, n3, light, shortcut=False)),
            (-1, Conv(w128, w128, 3, 2)),
            ((-1, 6, 14), FFM(2 * w128 + w256)),
            (-1, CSP(2 * w128 + w256, w256, n3, light, shortcut=False)),
            (-1, Conv(w256, w256, 3, 2)),
            ((-1, 10), FFM(2 * w256)),
            (-1, CSP(2 * w256, w512, n3, light, shortcut=False)),
            (17, SCAM(w128)),
            (20, SCAM(w256)),
            (23, SCAM(w512)),
            ((24, 25, 26), Detect((w128, w256, w512), classes, image)),
        ]
        self.sources = [source for source, _ in table]
        # No Sequential: layers read from several others.
        self.model = nn.ModuleList(layer for _, layer in table)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = _BN_EPS

    @property
    def grid(self) -> Tensor:
        """See :attr:`Detect.grid`."""
        detect = self.model[-1]
        assert isinstance(detect, Detect)
        return detect.grid

    def set_anchors(self, sizes: Tensor) -> None:
        """Anchors from the sizes (n, 2) of objects (pixels): nine groups of equal number by area, the mean of each.

        YOLOv5 finds them by k-means; sizes of trees or vehicles in one image scale vary too little for that to matter.
        """
        detect = self.model[-1]
        assert isinstance(detect, Detect)
        ordered = sizes[sizes.prod(1).argsort(stable=True)]
        wanted = len(STRIDES) * ANCHORS
        picks = [ordered[i * len(ordered) // wanted : max((i + 1) * len(ordered) // wanted, 1 + i * len(ordered) // wanted)]
                 for i in range(wanted)]  # fmt: skip
        means = torch.stack([part.mean(0) for part in picks]).reshape(len(STRIDES), ANCHORS, 2)
        detect.anchors.copy_(means / torch.tensor(STRIDES)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for source, layer in zip(self.sources, self.model, strict=True):
            if isinstance(source, int):
                x = layer(x if source == -1 else made[source])
            else:
                x = layer(*(x if i == -1 else made[i] for i in source))
            made.append(x)
        return x


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, bands: int, width: int, kernel: int = 1, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bands, width, kernel, stride, kernel // 2 if padding is None else padding, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.shortcut = Conv(width, width), Conv(width, width, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class PartialBlock(nn.Module):
    """A 3x3 convolution of the first quarter of the channels, then a 1x1 MLP around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.split = width // 4
        mixing = nn.Conv2d(self.split, self.split, 3, padding=1, bias=False)
        self.spatial_mixing = nn.ModuleDict({"partial_conv3": mixing})
        self.mlp = nn.Sequential(Conv(width, 2 * width), nn.Conv2d(2 * width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.spatial_mixing["partial_conv3"](x[:, : self.split])
        return x + self.mlp(torch.cat((mixed, x[:, self.split :]), 1))  # type: ignore[no-any-return]


class CSP(nn.Module):
    """Cross-stage partial block: half the channels through ``count`` blocks, half past them (YOLOv5's C3, or C3_Faster)."""

    def __init__(self, bands: int, width: int, count: int, light: bool, shortcut: bool = True) -> None:
        super().__init__()
        half = width // 2
        self.cv1, self.cv2, self.cv3 = Conv(bands, half), Conv(bands, half), Conv(2 * half, width)
        self.m = nn.Sequential(*(PartialBlock(half) if light else Bottleneck(half, shortcut) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Max pools of 5, 9 and 13 pixels by pooling three times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(width, width // 2), Conv(width // 2 * 4, width)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(F.max_pool2d(levels[-1], 5, 1, 2))
        return self.cv2(torch.cat(levels, 1))  # type: ignore[no-any-return]


class _Basic(nn.Module):
    """Convolution and batch normalisation, ReLU if wanted."""

    def __init__(
        self, bands: int, width: int, kernel: tuple[int, int] = (1, 1), dilation: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
        self.conv = nn.Conv2d(bands, width, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn, self.active = nn.BatchNorm2d(width), relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.active else x


class FEM(nn.Module):
    """Feature enhancement: a plain branch, and two whose 3x3 kernels are spread by 5 after 1x3 and 3x1 in either order."""

    def __init__(self, width: int, scale: float = 0.1) -> None:
        super().__init__()
        self.scale = scale
        few = width // 8
        wide, mid = 2 * few, few // 2 * 3
        self.branch0 = nn.Sequential(_Basic(width, wide), _Basic(wide, wide, (3, 3), relu=False))
        for name, first, second in (("branch1", (1, 3), (3, 1)), ("branch2", (3, 1), (1, 3))):
            layers = _Basic(width, few), _Basic(few, mid, first), _Basic(mid, wide, second)
            self.add_module(name, nn.Sequential(*layers, _Basic(wide, wide, (3, 3), dilation=5, relu=False)))
        self.ConvLinear = _Basic(6 * few, width, relu=False)
        self.shortcut = _Basic(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(3)], 1)
        return F.relu(self.ConvLinear(branches) * self.scale + self.shortcut(x))


class FFM(nn.Module):
    """Concatenation with learned weights, normalised to a sum of about 1.

    The authors' code views (N, C, H, W) memory as (N, H, W, C) when it applies the weights, so that they run along the memory
    and not along channels; trained weights expect that, so it is kept.
    """

    traceable = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(channels))

    def forward(self, *maps: Tensor) -> Tensor:
        weights = (self.w / (self.w.sum() + 1e-4)).split([m.shape[1] for m in maps])
        weighted = []
        for m, weight in zip(maps, weights, strict=True):
            n, channels, height, width = m.shape
            weighted.append((m.reshape(n, height, width, channels) * weight).reshape(m.shape))
        return torch.cat(weighted, 1)


class SCAM(nn.Module):
    """Spatial context: what the map says on the whole (per channel) times where it says it (per pixel), added to the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.k, self.v, self.m2 = Conv(width, 1), Conv(width, width), Conv(2, 1)
        self.m = nn.ModuleDict({"conv": nn.Conv2d(width, width, 1, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        mean = x.mean((2, 3)).softmax(1)[:, None]
        peak = x.amax((2, 3)).softmax(1)[:, None]
        key = self.k(x).flatten(2).softmax(2).transpose(1, 2)
        value = self.v(x).flatten(2)
        what = F.silu(self.m["conv"]((value @ key).reshape(n, channels, 1, 1)))
        where = self.m2((torch.cat((mean, peak), 1) @ value).reshape(n, 2, height, width)).sigmoid()
        return x + what * where


class Detect(nn.Module):
    """YOLOv5's head: one 1x1 convolution per map, decoded to boxes in pixels. ``anchors`` (3, 3, 2) are in strides."""

    anchors: Tensor

    def __init__(self, widths: Sequence[int], classes: int, image: int) -> None:
        super().__init__()
        self.values = 5 + classes
        # Placeholders, as in the authors' model file; training finds anchors and checkpoints bring them.
        sizes = torch.arange(2.0 * ANCHORS).reshape(1, ANCHORS, 2) / torch.tensor(STRIDES)[:, None, None]
        self.register_buffer("anchors", sizes)
        self.m = nn.ModuleList(nn.Conv2d(w, ANCHORS * self.values, 1) for w in widths)
        for i, stride in enumerate(STRIDES):
            steps = (torch.arange(image // stride) - 0.5) * stride
            x, y = steps.expand(len(steps), len(steps)), steps[:, None].expand(len(steps), len(steps))
            self.register_buffer(f"_corners{i}", torch.stack((x, y), -1)[None, None], persistent=False)
            # About eight objects per image among all cells, as YOLOv5 begins.
            nn.init.constant_(self.m[i].bias.reshape(ANCHORS, -1)[:, 4], math.log(8 / (image / stride) ** 2))  # type: ignore[operator, union-attr]

    @property
    def grid(self) -> Tensor:
        """The cells in the order of the candidates, (A, 3): centre x, y and stride (pixels)."""
        levels = []
        for i, stride in enumerate(STRIDES):
            centres = self.get_buffer(f"_corners{i}").reshape(-1, 2) + stride
            cells = torch.cat([centres, torch.full_like(centres[:, :1], stride)], 1)
            levels.append(cells.repeat(ANCHORS, 1))
        return torch.cat(levels)

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat([self._decode(i, stride, maps[i]) for i, stride in enumerate(STRIDES)], 1)

    def _decode(self, i: int, stride: int, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        raw = self.m[i](x).reshape(n, ANCHORS, self.values, height, width).permute(0, 1, 3, 4, 2).sigmoid()
        centre = raw[..., :2] * (2 * stride) + self.get_buffer(f"_corners{i}")
        size = (raw[..., 2:4] * 2).square() * (self.anchors[i] * stride)[None, :, None, None]
        return torch.cat((centre, size, raw[..., 4:]), -1).reshape(n, -1, self.values)


def parts(net: nn.Module) -> dict[str, Part]:
    """The detector up to its candidates."""
    assert isinstance(net, FFCAYolo)
    return {"detector": Part(net, {"image": torch.rand(1, net.bands, net.image, net.image)}, ("candidates",))}


def build(**arch: object) -> nn.Module:
    return FFCAYolo(**arch)  # type: ignore[arg-type]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The checkpoint's number of classes."""
    head = shapes.get("model.27.m.0.weight")
    return {**arch, "classes": head[0] // ANCHORS - 5} if head else arch


_PUBLISHED = {3: 4, 6: 8, 9: 16, 13: 8, 17: 4, 20: 8, 23: 16, 24: 4, 25: 8, 26: 16}
"""Layers of the backbone (3 to 9), of the way up and down (13 to 23) and before the head, with their strides."""


def features(net: nn.Module, shape: Shape) -> Features:
    """What the stages of backbone and neck end with, and the three maps that the head reads."""
    assert isinstance(net, FFCAYolo)
    return maps(*((f"model.{i}", stride, _width(net.model[i])) for i, stride in _PUBLISHED.items()))


def _width(layer: nn.Module) -> int:
    """Channels that a layer gives."""
    last = {CSP: "cv3", FEM: "ConvLinear", SPPF: "cv2", SCAM: "v"}[type(layer)]  # type: ignore[index]
    return int(layer.get_submodule(last).conv.out_channels)  # type: ignore[union-attr,arg-type]


FAMILY = Family(build, fit, parts=parts, features=features)
