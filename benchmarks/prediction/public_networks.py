"""The networks of the public latency rows, rebuilt by their published shapes with random weights.

Latency does not depend on the weights, so shapes are enough. Each builder's MACs are held against the published figure by
the benchmark (column "MACs off"). Detectors end before box decoding's sorting and suppression, which run on the host.

Sources of the shapes: Ultralytics model cards (YOLOv8, YOLO11), arXiv 2107.08430 (YOLOX), arXiv 2205.14756 and 2402.05008
(EfficientViT and its SAM encoders), MLPerf Inference (RetinaNet ResNeXt50), arXiv 1804.02767 (YOLOv3-tiny), timm for the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn


class ConvAct(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(
        self, cin: int, cout: int, k: int = 1, s: int = 1, groups: int = 1, act: nn.Module | None = None
    ) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout), act or nn.SiLU()
        )


class Bottleneck(nn.Module):
    """Two convolutions with a shortcut where the widths agree."""

    def __init__(self, cin: int, cout: int, add: bool, hidden: float = 0.5, kernels: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        middle = int(cout * hidden)
        self.body = nn.Sequential(ConvAct(cin, middle, kernels[0]), ConvAct(middle, cout, kernels[1]))
        self.add = add and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.add else self.body(x)


class C3(nn.Module):
    """Cross-stage block with three pointwise convolutions (YOLOX, and inside YOLO11's C3k2)."""

    def __init__(self, cin: int, cout: int, n: int, add: bool = True, kernels: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        half = cout // 2
        self.a, self.b, self.out = ConvAct(cin, half), ConvAct(cin, half), ConvAct(2 * half, cout)
        self.body = nn.Sequential(*(Bottleneck(half, half, add, 1.0, kernels) for _ in range(n)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.body(self.a(x)), self.b(x)], 1))


class C2f(nn.Module):
    """Cross-stage block that keeps every intermediate (YOLOv8); with ``deep`` the C3k variant of YOLO11."""

    def __init__(
        self, cin: int, cout: int, n: int, add: bool = False, expand: float = 0.5, deep: bool | None = None
    ) -> None:
        super().__init__()
        self.half = int(cout * expand)
        self.first, self.out = ConvAct(cin, 2 * self.half), ConvAct((2 + n) * self.half, cout)
        self.body = nn.ModuleList(self._inner(add, deep) for _ in range(n))

    def _inner(self, add: bool, deep: bool | None) -> nn.Module:
        if deep:
            return C3(self.half, self.half, 2, add, (3, 3))
        return Bottleneck(self.half, self.half, add, 1.0 if deep is None else 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.body:
            parts.append(block(parts[-1]))
        return self.out(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Spatial pyramid pooling by three max-pools; in a chain (YOLOv8 on) or side by side (YOLOX)."""

    def __init__(self, channels: int, chained: bool = True) -> None:
        super().__init__()
        self.first, self.out = ConvAct(channels, channels // 2), ConvAct(channels * 2, channels)
        sizes = (5, 5, 5) if chained else (5, 9, 13)
        self.pools, self.chained = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in sizes), chained

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for pool in self.pools:
            parts.append(pool(parts[-1] if self.chained else parts[0]))
        return self.out(torch.cat(parts, 1))


class PositionAttention(nn.Module):
    """YOLO11's C2PSA: attention over the coarsest map, keys half as wide as values."""

    def __init__(self, channels: int, n: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.first, self.out = ConvAct(channels, channels), ConvAct(channels, channels)
        self.blocks = nn.ModuleList(_AttentionBlock(self.half) for _ in range(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x).chunk(2, 1)
        for block in self.blocks:
            b = block(b)
        return self.out(torch.cat([a, b], 1))


class _AttentionBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.heads = max(1, c // 64)
        self.dim, self.key = c // self.heads, c // self.heads // 2
        self.qkv = ConvAct(c, c + 2 * self.key * self.heads, act=nn.Identity())
        self.position, self.project = ConvAct(c, c, 3, groups=c, act=nn.Identity()), ConvAct(c, c, act=nn.Identity())
        self.mlp = nn.Sequential(ConvAct(c, 2 * c), ConvAct(2 * c, c, act=nn.Identity()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        q, k, v = (
            self.qkv(x).view(b, self.heads, 2 * self.key + self.dim, h * w).split([self.key, self.key, self.dim], 2)
        )
        weights = ((q.transpose(-2, -1) @ k) * self.key**-0.5).softmax(-1)
        mixed = (v @ weights.transpose(-2, -1)).view(b, c, h, w) + self.position(v.reshape(b, c, h, w))
        x = x + self.project(mixed)
        return x + self.mlp(x)


class BoxHead(nn.Module):
    """Decoupled heads of YOLOv8 and YOLO11 (``light``: depthwise class branch), box distribution decoded."""

    def __init__(self, channels: Sequence[int], classes: int = 80, light: bool = False) -> None:
        super().__init__()
        box, cls = max(16, channels[0] // 4, 64), max(channels[0], min(classes, 100))
        self.box = nn.ModuleList(
            nn.Sequential(ConvAct(c, box, 3), ConvAct(box, box, 3), nn.Conv2d(box, 64, 1)) for c in channels
        )
        self.cls = nn.ModuleList(self._classes(c, cls, classes, light) for c in channels)
        self.classes = classes

    @staticmethod
    def _classes(c: int, width: int, classes: int, light: bool) -> nn.Module:
        if not light:
            return nn.Sequential(ConvAct(c, width, 3), ConvAct(width, width, 3), nn.Conv2d(width, classes, 1))
        first = nn.Sequential(ConvAct(c, c, 3, groups=c), ConvAct(c, width))
        second = nn.Sequential(ConvAct(width, width, 3, groups=width), ConvAct(width, width))
        return nn.Sequential(first, second, nn.Conv2d(width, classes, 1))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        flat = [torch.cat([b(x), c(x)], 1).flatten(2) for b, c, x in zip(self.box, self.cls, maps, strict=True)]
        box, cls = torch.cat(flat, 2).split([64, self.classes], 1)
        spread = box.view(box.shape[0], 4, 16, -1).softmax(2)
        bins = torch.arange(16, dtype=torch.float32).view(1, 1, 16, 1)
        return torch.cat([(spread * bins).sum(2), cls.sigmoid()], 1)


class Yolo(nn.Module):
    """YOLOv8 (``version`` 8) or YOLO11 at a depth and width."""

    def __init__(self, version: int, depth: float, width: float, largest: int, deep: bool = False) -> None:
        super().__init__()
        c = [8 * math.ceil(min(v, largest) * width / 8) for v in (64, 128, 256, 512, 1024)]
        v8, light = version == 8, version == 11

        def block(cin: int, cout: int, n: int, add: bool = False, expand: float = 0.5, k: bool = False) -> nn.Module:
            n = max(1, round(n * depth))
            return C2f(cin, cout, n, add or light, expand, None if v8 else (k or deep))

        if v8:
            stages = [(c[1], c[1], 3, 0.5), (c[2], c[2], 6, 0.5), (c[3], c[3], 6, 0.5), (c[4], c[4], 3, 0.5)]
        else:
            stages = [(c[1], c[2], 2, 0.25), (c[2], c[3], 2, 0.25), (c[3], c[3], 2, 0.5), (c[4], c[4], 2, 0.5)]
        self.stem, self.downs, self.blocks = ConvAct(3, c[0], 3, 2), nn.ModuleList(), nn.ModuleList()
        before = c[0]
        for i, (cin, cout, n, expand) in enumerate(stages):
            self.downs.append(ConvAct(before, cin, 3, 2))
            self.blocks.append(block(cin, cout, n, True, expand, light and i >= 2))
            before = cout
        self.top = nn.Sequential(Pyramid(c[4]), *([] if v8 else [PositionAttention(c[4], max(1, round(2 * depth)))]))
        n = 3 if v8 else 2
        p3, p4, p5 = stages[1][1], stages[2][1], c[4]
        self.up = nn.Upsample(scale_factor=2)
        self.up4, self.up3 = block(p5 + p4, c[3], n), block(c[3] + p3, c[2], n)
        self.down3, self.down4 = ConvAct(c[2], c[2], 3, 2), ConvAct(c[3], c[3], 3, 2)
        self.out4, self.out5 = block(c[2] + c[3], c[3], n), block(c[3] + p5, c[4], n, k=light)
        self.head = BoxHead((c[2], c[3], c[4]), light=light)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps, x = [], self.stem(x)
        for down, block in zip(self.downs, self.blocks, strict=True):
            x = block(down(x))
            maps.append(x)
        p5 = self.top(x)
        p4 = self.up4(torch.cat([self.up(p5), maps[2]], 1))
        p3 = self.up3(torch.cat([self.up(p4), maps[1]], 1))
        n4 = self.out4(torch.cat([self.down3(p3), p4], 1))
        n5 = self.out5(torch.cat([self.down4(n4), p5], 1))
        return self.head([p3, n4, n5])


class YoloX(nn.Module):
    """YOLOX-S with leaky ReLU in place of SiLU."""

    def __init__(self, depth: float = 0.33, width: float = 0.5) -> None:
        super().__init__()
        c = [int(v * width) for v in (64, 128, 256, 512, 1024)]
        n = round(3 * depth)
        self.stem = ConvAct(12, c[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvAct(c[i], c[i + 1], 3, 2),
                *([Pyramid(c[4], False)] if i == 3 else []),
                C3(c[i + 1], c[i + 1], n if i in (0, 3) else 3 * n, i != 3),
            )
            for i in range(4)
        )
        self.up = nn.Upsample(scale_factor=2)
        self.lateral, self.reduce = ConvAct(c[4], c[3]), ConvAct(c[3], c[2])
        self.p4, self.p3 = C3(2 * c[3], c[3], n, False), C3(2 * c[2], c[2], n, False)
        self.d3, self.d4 = ConvAct(c[2], c[2], 3, 2), ConvAct(c[3], c[3], 3, 2)
        self.n3, self.n4 = C3(2 * c[2], c[3], n, False), C3(2 * c[3], c[4], n, False)
        w = int(256 * width)
        self.stems = nn.ModuleList(ConvAct(k, w) for k in c[2:])
        self.cls = nn.ModuleList(
            nn.Sequential(ConvAct(w, w, 3), ConvAct(w, w, 3), nn.Conv2d(w, 80, 1)) for _ in range(3)
        )
        self.reg = nn.ModuleList(
            nn.Sequential(ConvAct(w, w, 3), ConvAct(w, w, 3), nn.Conv2d(w, 5, 1)) for _ in range(3)
        )
        for module in self.modules():
            for name, child in list(module.named_children()):
                if isinstance(child, nn.SiLU):
                    setattr(module, name, nn.LeakyReLU(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(nn.functional.pixel_unshuffle(x, 2))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        top = self.lateral(maps[3])
        p4 = self.reduce(self.p4(torch.cat([self.up(top), maps[2]], 1)))
        p3 = self.p3(torch.cat([self.up(p4), maps[1]], 1))
        n3 = self.n3(torch.cat([self.d3(p3), p4], 1))
        n4 = self.n4(torch.cat([self.d4(n3), top], 1))
        out = []
        for stem, cls, reg, level in zip(self.stems, self.cls, self.reg, (p3, n3, n4), strict=True):
            y = stem(level)
            out.append(torch.cat([reg(y), cls(y).sigmoid()], 1).flatten(2))
        return torch.cat(out, 2)


class YoloV3Tiny(nn.Module):
    """Seven convolutions with pooling, two output scales."""

    def __init__(self) -> None:
        super().__init__()

        def conv(a: int, b: int, k: int = 3) -> nn.Module:
            return ConvAct(a, b, k, act=nn.LeakyReLU(0.1))

        widths = (3, 16, 32, 64, 128, 256)
        self.first = nn.ModuleList(conv(a, b) for a, b in itertools.pairwise(widths))
        self.pool, self.last = nn.MaxPool2d(2), nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
        self.c6, self.c7, self.c8 = conv(256, 512), conv(512, 1024), conv(1024, 256, 1)
        self.o1 = nn.Sequential(conv(256, 512), nn.Conv2d(512, 255, 1))
        self.c9, self.up = conv(256, 128, 1), nn.Upsample(scale_factor=2)
        self.o2 = nn.Sequential(conv(384, 256), nn.Conv2d(256, 255, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv in self.first[:-1]:
            x = self.pool(conv(x))
        kept = self.first[-1](x)
        x = self.c8(self.c7(self.last(self.c6(self.pool(kept)))))
        return self.o1(x), self.o2(torch.cat([self.up(self.c9(x)), kept], 1))


class SamEncoder(nn.Module):
    """EfficientViT-L/XL backbone with the SAM neck: three maps to 64 x 64 x 256, fused inverted bottlenecks."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], neck: int, expand: int) -> None:
        super().__init__()
        from timm.models.efficientvit_mit import EfficientVitLarge

        self.body = EfficientVitLarge(widths=widths, depths=depths, num_classes=0, head_widths=(8, 8))
        self.maps = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 256, 1), nn.BatchNorm2d(256)) for c in widths[:-4:-1])
        self.neck = nn.ModuleList(
            nn.Sequential(
                ConvAct(256, 256 * expand, 3, act=nn.GELU()), ConvAct(256 * expand, 256, 1, act=nn.Identity())
            )
            for _ in range(neck)
        )
        self.out = nn.Conv2d(256, 256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, found = self.body.stem(x), []
        for stage in self.body.stages:
            x = stage(x)
            found.append(x)
        y = sum(
            nn.functional.interpolate(conv(level), (64, 64), mode="bicubic")
            for conv, level in zip(self.maps, found[::-1], strict=False)
        )
        for block in self.neck:
            y = y + block(y)
        return self.out(y)


class NanoSamEncoder(nn.Module):
    """ResNet-18 with a neck that upsamples to 64 x 64 x 256."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm_net("resnet18", num_classes=0, global_pool="")
        self.up = nn.Sequential(
            nn.Conv2d(512, 256, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(256, 256, 3, 2, 1, 1),
            nn.GELU(),
            nn.Conv2d(256, 256, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.body.forward_features(x))


class RetinaNet(nn.Module):
    """ResNeXt50-32x4d with pyramid P3-P7 and MLPerf's heads: 9 anchors, 264 classes; before suppression."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm_net("resnext50_32x4d", features_only=True, out_indices=(2, 3, 4))
        self.lateral = nn.ModuleList(nn.Conv2d(c, 256, 1) for c in (512, 1024, 2048))
        self.smooth = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(3))
        self.p6, self.p7 = nn.Conv2d(2048, 256, 3, 2, 1), nn.Conv2d(256, 256, 3, 2, 1)

        def head(out: int) -> nn.Module:
            layers = [m for _ in range(4) for m in (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())]
            return nn.Sequential(*layers, nn.Conv2d(256, out, 3, padding=1))

        self.cls, self.box = head(9 * 264), head(36)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c3, c4, c5 = self.body(x)
        p5 = self.lateral[2](c5)
        p4 = self.lateral[1](c4) + nn.functional.interpolate(p5, size=c4.shape[-2:])
        p3 = self.lateral[0](c3) + nn.functional.interpolate(p4, size=c3.shape[-2:])
        maps = [conv(p) for conv, p in zip(self.smooth, (p3, p4, p5), strict=True)]
        p6 = self.p6(c5)
        maps += [p6, self.p7(p6.relu())]
        return torch.cat([torch.cat([self.cls(m).sigmoid(), self.box(m)], 1).flatten(2) for m in maps], 2)


class Encoder(nn.Module):
    """BERT's encoder: ``layers`` post-norm blocks on embedded tokens, and the span head."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.blocks = nn.Sequential(*(Block(width, width // 64, qkv_bias=True) for _ in range(layers)))
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


def timm_net(name: str, **options: object) -> nn.Module:
    """A timm network with random weights."""
    import timm

    return timm.create_model(name, pretrained=False, **options)


@dataclass(frozen=True)
class Public:
    """How to build a network of the rows: family, input shape, builder, and its published GMACs (None: not published)."""

    family: str
    shape: tuple[int, ...]
    build: Callable[[], nn.Module]
    gmacs: float | None = None
    note: str = ""


def _image(size: int, batch: int = 1) -> tuple[int, ...]:
    return (batch, 3, size, size)


_YOLO11 = {
    "n": (0.5, 0.25, 1024, False, 3.25),
    "s": (0.5, 0.5, 1024, False, 10.75),
    "m": (0.5, 1, 512, True, 34.0),
    "l": (1, 1, 512, True, 43.45),
    "x": (1, 1.5, 512, True, 97.45),
}
_YOLOV8 = {"n": (1 / 3, 0.25, 1024, 4.35), "s": (1 / 3, 0.5, 1024, 14.3), "m": (2 / 3, 0.75, 768, 39.45)}
_SAM = {
    "L0": (512, (32, 64, 128, 256, 512), (1, 1, 1, 4, 4), 4, 1, 35.0),
    "L1": (512, (32, 64, 128, 256, 512), (1, 1, 1, 6, 6), 8, 1, 49.0),
    "L2": (512, (32, 64, 128, 256, 512), (1, 2, 2, 8, 8), 8, 1, 69.0),
    "XL0": (1024, (32, 64, 128, 256, 512, 1024), (0, 1, 1, 2, 3, 3), 6, 4, 185.0),
    "XL1": (1024, (32, 64, 128, 256, 512, 1024), (1, 2, 2, 4, 6, 6), 12, 4, 322.0),
}


def networks() -> dict[str, Public]:
    """Name -> network; names are ``<model as in the rows>@<input size>``."""
    found: dict[str, Public] = {}
    for size, (d, w, m, deep, gmacs) in _YOLO11.items():

        def build11(d: float = d, w: float = w, m: int = m, deep: bool = deep) -> nn.Module:
            return Yolo(11, d, w, m, deep)

        found[f"YOLO11{size}@640"] = Public("YOLO11", _image(640), build11, gmacs)
        found[f"YOLO11{size}@416"] = Public("YOLO11", _image(416), build11)
    for size, (d, w, m, gmacs) in _YOLOV8.items():

        def build8(d: float = d, w: float = w, m: int = m) -> nn.Module:
            return Yolo(8, d, w, m)

        found[f"YOLOv8{size}@640"] = Public("YOLOv8", _image(640), build8, gmacs)
        found[f"YOLOv8{size}@416"] = Public("YOLOv8", _image(416), build8)
    found["YOLOX-S-Leaky@640"] = Public("YOLOX", _image(640), YoloX, 13.4)
    for size in (224, 256, 288):
        for kind in ("b1", "b2"):
            gmacs = {
                ("b1", 224): 0.52,
                ("b1", 256): 0.68,
                ("b1", 288): 0.86,
                ("b2", 224): 1.6,
                ("b2", 256): 2.1,
                ("b2", 288): 2.6,
            }
            found[f"EfficientViT-{kind.upper()}@{size}"] = Public(
                "EfficientViT", _image(size), lambda k=kind: timm_net(f"efficientvit_{k}"), gmacs[kind, size]
            )
    for name, (size, widths, depths, neck, expand, gmacs) in _SAM.items():
        found[f"EfficientViT-SAM-{name}@{size}"] = Public(
            "EfficientViT-SAM", _image(size), lambda a=(widths, depths, neck, expand): SamEncoder(*a), gmacs
        )
    found["NanoSAM ResNet18 image encoder@1024"] = Public(
        "ResNet", _image(1024), NanoSamEncoder, None, "neck approximate"
    )
    found["MobileSAM TinyViT image encoder@1024"] = Public(
        "TinyViT", _image(1024), lambda: timm_net("tiny_vit_5m_224", num_classes=0, global_pool="")
    )
    found["OWL-ViT B/32 image encoder@768"] = Public(
        "ViT", _image(768), lambda: timm_net("vit_base_patch32_224", img_size=768, num_classes=0), 55.1
    )
    for name, net in (
        ("ResNet-50", "resnet50"),
        ("ResNet-18", "resnet18"),
        ("VGG-19", "vgg19"),
        ("MobileNet-v2", "mobilenetv2_100"),
        ("MobileOne-S0", "mobileone_s0"),
    ):
        gmacs = {"ResNet-50": 4.1, "ResNet-18": 1.8, "VGG-19": 19.6, "MobileNet-v2": 0.3, "MobileOne-S0": 0.275}
        family = "ResNet" if "ResNet" in name else name.split("-")[0]
        found[f"{name}@224"] = Public(family, _image(224), lambda n=net: _deployed(timm_net(n)), gmacs[name])
    found["YOLOv3-tiny@416"] = Public("YOLOv3", _image(416, 8), YoloV3Tiny, 8 * 2.8, "batch 8")
    found["RetinaNet ResNeXt50-32x4d@800"] = Public("RetinaNet", _image(800), RetinaNet, None, "before suppression")
    note = "embedded tokens; SQuAD's mean length of 177 assumed where the row's length varies"
    found["BERT-large SQuAD@177"] = Public("BERT", (1, 177, 1024), lambda: Encoder(1024, 24), None, note)
    found["BERT-large@384"] = Public("BERT", (1, 384, 1024), lambda: Encoder(1024, 24))
    found["BERT-base@128"] = Public("BERT", (1, 128, 768), lambda: Encoder(768, 12))
    return found


def _deployed(net: nn.Module) -> nn.Module:
    """Merges training-time branches (MobileOne) as deployment does."""
    from timm.utils.model import reparameterize_model

    return reparameterize_model(net.eval())
