"""Batch-norm ResNets in torchvision's layout (timm builds them): SeCo, GeoKR, TOV, SSL4EO-L, Satlas.

Source: He et al. 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, maps
from rsedge.models.layers.largest import Largest
from rsedge.models.library_features import timm_maps

DEPTHS: dict[int, tuple[type[nn.Module], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class SeveralImages(ResNet):
    """x (N, frames, bands, H, W) -> features: the largest values of all images' last maps, pooled (Satlas)."""

    largest: Largest

    def forward(self, x: Tensor) -> Tensor:
        largest: Tensor = self.largest(self.forward_features(x.flatten(0, 1)))
        return self.forward_head(largest)  # type: ignore[no-any-return]


def build(
    bands: int,
    depth: int,
    classes: int = 0,
    layers: Sequence[int] | None = None,
    width: int = 64,
    stride: int = 32,
    frames: int = 1,
) -> nn.Module:
    """x (N, bands, H, W) -> pooled features (N, 8 or 32 * width) or logits (N, classes).

    Args:
        depth: 18, 50, 101 or 152; says the kind of block, and how many unless ``layers`` does.
        width: channels of the first stage.
        stride: 32, or 16 with a dilated last stage.
        frames: images of one place; more than one make :class:`SeveralImages`.
    """
    kind, standard = DEPTHS[depth]
    net = (SeveralImages if frames > 1 else ResNet)(
        kind, tuple(layers or standard), num_classes=classes, in_chans=bands, output_stride=stride,
        channels=(width, 2 * width, 4 * width, 8 * width),
    )  # fmt: skip
    if isinstance(net, SeveralImages):
        net.largest = Largest(frames)
    return net


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """A head of the checkpoint's classes."""
    return {**arch, "classes": shapes["fc.weight"][0]} if "fc.weight" in shapes else arch


def features(net: nn.Module, shape: Shape) -> Features:
    """The stem and the four stages, as timm declares them; of several images the largest values of the last one."""
    if isinstance(net, SeveralImages):
        return maps(("largest", 32, int(net.num_features)))
    return timm_maps(net, "NCHW")


FAMILY = Family(build, fit, features=features)
