"""RVSA's detectors of turned boxes: its feature pyramid and Oriented R-CNN, as OBBDetection saves them.

Sources: Wang et al. 2022 (TGRS); Xie et al. 2021, "Oriented R-CNN for Object Detection" (ICCV). The network flies as two graphs of
fixed shapes, with :mod:`rsedge.data.boxes.proposals` between and behind them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.boxes.proposals import anchors, candidates, proposals
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.families.rvsa import STRIDES, RVSAPyramid, fit_pyramid
from rsedge.models.features import Features, Shape, inside, maps
from rsedge.models.layers.oriented import FPN, OrientedHead, OrientedRPN, aligned, refined
from rsedge.models.parts import Part

LEVELS = tuple(f"map{stride}" for stride in STRIDES)
PROPOSALS, HEADS = "proposals", "heads"


class RVSAOriented(nn.Module):
    """x (N, bands, image, image) -> candidates (N, count, 5 + classes) of the boxes along rows and columns around the turned ones:
    centre x, y, width, height (pixels), 1 for a proposal and 0 for none, class scores (0 to 1). :func:`parts` give the turned ones.

    Args:
        count: proposals of an image; the authors take up to 2000.
        hidden: units of the head's layers.
    """

    one_graph = False

    def __init__(
        self,
        classes: int,
        image: int,
        bands: int = 3,
        dim: int = 768,
        count: int = 512,
        width: int = 256,
        hidden: int = 1024,
        **pyramid: Any,
    ) -> None:
        super().__init__()
        self.image, self.bands, self.count, self.width = image, bands, count, width
        self.backbone = RVSAPyramid(image, bands, dim, **pyramid)
        self.neck = FPN([dim] * len(STRIDES), width)
        self.rpn_head = OrientedRPN(width)
        self.roi_head = nn.ModuleDict({"bbox_head": OrientedHead(width, classes, hidden)})

    def forward(self, x: Tensor) -> Tensor:
        *levels, objectness, offsets = Proposals(self)(x)
        said = zip(objectness.numpy(force=True), offsets.numpy(force=True), strict=True)
        boxes, counts = zip(*(proposals(*one, self.image, self.count) for one in said), strict=True)
        answers = Heads(self)(*levels, torch.from_numpy(np.stack(boxes)).to(x))
        scores, places = (answer.numpy(force=True) for answer in answers)
        found = [candidates(*one) for one in zip(scores, places, counts, strict=True)]
        return torch.from_numpy(np.stack(found)).to(x)


class Proposals(nn.Module):
    """image (N, bands, image, image) -> four maps, objectness (N, A), offsets (N, A, 6)."""

    def __init__(self, net: RVSAOriented) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head = net.backbone, net.neck, net.rpn_head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        levels = self.neck(self.backbone(image))
        return (*levels[: len(STRIDES)], *self.rpn_head(levels))


class Heads(nn.Module):
    """Four maps and boxes (N, count, 5) -> scores (N, count, classes + 1), background last, and boxes (N, count, 5)."""

    def __init__(self, net: RVSAOriented) -> None:
        super().__init__()
        self.bbox_head = net.roi_head["bbox_head"]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        *levels, boxes = tensors
        logits, offsets = self.bbox_head(aligned(levels, STRIDES, boxes))
        return logits.softmax(-1), refined(boxes, offsets)


def parts(net: nn.Module) -> dict[str, Part]:
    """The pyramid with what is said of anchors, and what is said of proposals."""
    assert isinstance(net, RVSAOriented)
    grid = net.backbone.grid
    edges = (4 * grid, 2 * grid, grid, grid // 2)
    levels = {name: torch.randn(1, net.width, edge, edge) for name, edge in zip(LEVELS, edges, strict=True)}
    places, _ = anchors(net.image)
    some = torch.from_numpy(places)[torch.linspace(0, len(places) - 1, net.count).long()]
    centre, size = (some[:, :2] + some[:, 2:]) / 2, some[:, 2:] - some[:, :2]
    boxes = torch.cat([centre, size, torch.linspace(-1.5, 1.5, net.count)[:, None]], 1)[None]
    image = torch.rand(1, net.bands, net.image, net.image)
    return {
        PROPOSALS: Part(Proposals(net), {"image": image}, (*LEVELS, "objectness", "offsets")),
        HEADS: Part(Heads(net), {**levels, "boxes": boxes}, ("scores", "refined"), ("boxes",)),
    }


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The checkpoint's classes beside what :func:`fit_pyramid` reads."""
    head = shapes.get("roi_head.bbox_head.fc_cls.weight")
    return {**fit_pyramid(arch, shapes), **({"classes": head[0] - 1} if head else {})}


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's image size."""
    return spec.model_copy(update={"tile": arch["image"]})


def features(net: nn.Module, shape: Shape) -> Features:
    """The backbone's, and the neck's maps."""
    assert isinstance(net, RVSAOriented)
    levels = [(f"neck.fpn_convs.{i}", stride, net.width) for i, stride in enumerate(STRIDES)]
    return (*inside("backbone", net.backbone.features(shape)), *maps(*levels))


FAMILY = Family(RVSAOriented, fit, parts=parts, contract=contract, features=features)
