"""RSPrompter's anchor variant: Segment Anything whose prompts a detector on its inner layers makes.

Sources: Chen et al. 2024, "RSPrompter" (TGRS), sections on the feature aggregator and the anchor-based prompter; Ren et al. 2015,
"Faster R-CNN"; Li et al. 2022, "ViTDet" (a pyramid from one map). Suppressing overlaps and cutting out regions is the host's
(:mod:`rsedge.runtimes.wholes.instances`); every graph has a fixed number of regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family, sam
from rsedge.models.families.sam import PATCH, SAM, Decoder
from rsedge.models.features import Feature, Features, Shape, maps
from rsedge.models.parts import Part

STRIDES = (4, 8, 16, 32, 64)
SCALES, RATIOS = (4.0, 8.0), (0.5, 1.0, 2.0)
"""Of anchors: edges in strides, height over width."""
BOX, MASK = 7, 14
"""Places along the edge of a region that is classified, and of one that becomes prompts."""
LARGEST_CHANGE = math.log(1000 / 16)
"""Of the logarithm of a box's edge."""
SPREAD = (0.1, 0.1, 0.2, 0.2)
"""Of a region's box, in its edges: what the classifier's numbers are multiplied by."""


class AnchorPrompter(SAM):
    """SAM and what makes its prompts; ``forward`` takes prompts, as SAM's does, the parts make them.

    Args:
        narrow: channels of each layer inside the aggregator, which reads every second layer from the first.
        classes: without the background, which comes last.
        wide: units of the classifier.
        regions: that are classified; ``prompts`` become masks.
    """

    def __init__(
        self,
        image: int = 1024,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        whole: Sequence[int] = (2, 5, 8, 11),
        hidden: int = 256,
        prompts: int = 100,
        tokens: int = 5,
        narrow: int = 32,
        classes: int = 10,
        wide: int = 1024,
        regions: int = 1000,
    ) -> None:
        super().__init__(image, dim, depth, heads, whole, hidden, prompts, tokens)
        self.classes, self.regions = classes, regions
        self.neck = Neck(dim, len(range(0, depth, 2)), narrow, hidden)
        self.rpn_head = Proposer(hidden, image)
        self.bbox_head = Classifier(hidden, wide, classes, image)
        self.point_emb = prompter(hidden, tokens)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image -> embedding (N, hidden, g, g) and the inner layers' features (N, hidden, g, g)."""
        states = self.vision_encoder.states(x)
        return self.vision_encoder.embedding(states[-1]), self.neck.feature_aggregator(states[::2])

    def prompts_of(self, regions: Tensor) -> Tensor:
        """Regions (N, P, hidden, 14, 14) -> prompts (N, P, tokens, hidden)."""
        found = self.point_emb(regions.flatten(0, 1)).reshape(*regions.shape[:2], *self.shape[2:3], -1)
        return found[..., ::2].sin() + found[..., 1::2]  # type: ignore[no-any-return]


def prompter(hidden: int, tokens: int) -> nn.Sequential:
    """A region (B, hidden, 14, 14) -> numbers (B, 2 * tokens * hidden)."""
    return nn.Sequential(
        nn.Conv2d(hidden, hidden, 3, 2, 1), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Flatten(),
        nn.Linear(hidden * MASK**2 // 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, 2 * tokens * hidden),
    )  # fmt: skip


class Neck(nn.Module):
    """The encoder's layers as one map, and that map as a pyramid; names are the authors'."""

    def __init__(self, dim: int, layers: int, narrow: int, hidden: int) -> None:
        super().__init__()
        self.feature_aggregator = Aggregator(dim, layers, narrow, hidden)
        self.feature_spliter = Pyramid(hidden)


def convolved(width: int, out: int, size: int) -> list[nn.Module]:
    return [nn.Conv2d(width, out, size, padding=size // 2), nn.BatchNorm2d(out), nn.ReLU()]


class Aggregator(nn.Module):
    """Layers (N, g, g, dim) -> (N, hidden, g, g): one after the other, each narrowed, added and convolved."""

    def __init__(self, dim: int, layers: int, narrow: int, hidden: int) -> None:
        super().__init__()
        self.downconvs = nn.ModuleList(
            nn.Sequential(*convolved(dim, narrow, 1), *convolved(narrow, narrow, 3)) for _ in range(layers)
        )
        self.hidden_convs = nn.ModuleList(nn.Sequential(*convolved(narrow, narrow, 3)) for _ in range(layers))
        last = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.fusion_conv = nn.Sequential(*convolved(narrow, hidden, 1), *convolved(hidden, hidden, 3), last)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        x: Tensor | None = None
        for state, down, hidden in zip(states, self.downconvs, self.hidden_convs, strict=True):
            own = down(state.permute(0, 3, 1, 2))
            x = own if x is None else x + own
            x = x + hidden(x)
        return self.fusion_conv(x)  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """One map (N, hidden, g, g) at stride 16 -> five of ``hidden`` channels at strides 4 to 64."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        half, quarter = hidden // 2, hidden // 4
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(hidden, half, 2, 2),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(hidden, half, 2, 2))
        widths = (quarter, half, hidden, hidden)
        self.lateral_convs = nn.ModuleList(NormedConv(width, hidden, 1) for width in widths)
        self.fpn_convs = nn.ModuleList(NormedConv(hidden, hidden, 3) for _ in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = (self.fpn1(x), self.fpn2(x), x, F.max_pool2d(x, 2))
        found = [
            conv(lateral(level))
            for level, lateral, conv in zip(levels, self.lateral_convs, self.fpn_convs, strict=True)
        ]
        return [*found, found[-1][..., ::2, ::2]]


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of (N, C, H, W); its eps is what mmcv gives all norms that it builds."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormedConv(nn.Module):
    """A convolution without bias, then a norm over channels."""

    def __init__(self, width: int, out: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, size, padding=size // 2, bias=False)
        self.norm_layer = ChannelNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_layer(self.conv(x))  # type: ignore[no-any-return]


class Proposer(nn.Module):
    """Pyramid -> a box of each anchor, and how likely something is in it.

    The likeliest are chosen on the host: equally likely ones would change their order with a runtime's rounding.
    """

    def __init__(self, hidden: int, image: int) -> None:
        super().__init__()
        count = len(SCALES) * len(RATIOS)
        self.image = image
        self.rpn_conv = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.rpn_cls, self.rpn_reg = nn.Conv2d(hidden, count, 1), nn.Conv2d(hidden, 4 * count, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (N, A, 4) as corners in pixels and their scores (N, A), 0 to 1: level after level, row by row, six a place."""
        levels = [self._level(x, stride) for x, stride in zip(pyramid, STRIDES, strict=True)]
        return torch.cat([boxes for boxes, _ in levels], 1), torch.cat([scores for _, scores in levels], 1)

    def _level(self, x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        x = F.relu(self.rpn_conv(x))
        scores = self.rpn_cls(x).permute(0, 2, 3, 1).flatten(1)
        changes = self.rpn_reg(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        anchors = anchors_of(x.shape[-2], x.shape[-1], stride).to(x)
        return changed(anchors.expand_as(changes), changes, self.image), scores.sigmoid()


def anchors_of(rows: int, columns: int, stride: int) -> Tensor:
    """Anchors (rows * columns * 6, 4) as corners; the first lies around the corner of the image."""
    ratios = torch.tensor(RATIOS).sqrt()
    edges = torch.stack((stride / ratios, stride * ratios), -1)[:, None] * torch.tensor(SCALES)[:, None]
    around = torch.cat((-edges / 2, edges / 2), -1).reshape(-1, 4)
    y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
    return (torch.stack((x, y, x, y), -1)[:, :, None] + around).reshape(-1, 4)


def changed(boxes: Tensor, changes: Tensor, image: int) -> Tensor:
    """Boxes (..., 4) as corners, moved by shares of their edges and scaled by exponentials, cut at the image's edge."""
    middle, edges = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    middle = middle + edges * changes[..., :2]
    half = edges * changes[..., 2:].clamp(-LARGEST_CHANGE, LARGEST_CHANGE).exp() / 2
    return torch.cat((middle - half, middle + half), -1).clamp(0, image)


class Classifier(nn.Module):
    """Regions (N, R, hidden, 7, 7) and their boxes (N, R, 4) -> scores (N, R, classes + 1), boxes (N, R, classes, 4)."""

    spread: Tensor

    def __init__(self, hidden: int, wide: int, classes: int, image: int) -> None:
        super().__init__()
        self.image = image
        self.shared_fcs = nn.ModuleList([nn.Linear(hidden * BOX**2, wide), nn.Linear(wide, wide)])
        self.fc_cls, self.fc_reg = nn.Linear(wide, classes + 1), nn.Linear(wide, 4 * classes)
        self.register_buffer("spread", torch.tensor(SPREAD), persistent=False)

    def forward(self, regions: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        x = regions.flatten(2)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        changes = self.fc_reg(x).unflatten(-1, (-1, 4)) * self.spread
        return self.fc_cls(x).softmax(-1), changed(rois[:, :, None].expand_as(changes), changes, self.image)


def sine_line(count: int, width: int) -> Tensor:
    """Sines and cosines in turn of ``count`` places along a line, (count, width): DETR's code, its last place at a full turn."""
    places = torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
    phases = places[:, None] / 10000.0 ** (2 * (torch.arange(width) // 2) / width)
    return torch.stack((phases[:, ::2].sin(), phases[:, 1::2].cos()), -1).flatten(1)


def place_code(grid: int, finest: int, hidden: int) -> tuple[Tensor, Tensor]:
    """Code of the rows and of the columns of a map, (1, hidden, grid, 1) and (1, hidden, 1, grid), whose sum is added to it.

    Half of the channels tell rows, half columns. The code is that of the finest map, averaged down to others.
    """
    line = sine_line(finest, hidden // 2).T[None, :, :, None]
    line = F.interpolate(line, size=(grid, 1), mode="bilinear", align_corners=False)
    none = torch.zeros_like(line)
    return torch.cat((line, none), 1), torch.cat((none, line), 1).transpose(2, 3)


class _Encoder(nn.Module):
    """Image -> embedding, features."""

    def __init__(self, net: AnchorPrompter) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.embed(image)


class _Proposer(nn.Module):
    """Features -> four maps with the code of their places, proposals and how likely they are."""

    def __init__(self, net: AnchorPrompter) -> None:
        super().__init__()
        self.pyramid, self.rpn_head = net.neck.feature_spliter, net.rpn_head
        finest = 4 * (net.image // PATCH)
        for level, grid in enumerate(grids(net.image)[:4]):
            rows, columns = place_code(grid, finest, net.hidden)
            self.register_buffer(f"rows{level}", rows)
            self.register_buffer(f"columns{level}", columns)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.pyramid(features)
        placed = [
            level + self.get_buffer(f"rows{i}") + self.get_buffer(f"columns{i}") for i, level in enumerate(pyramid[:4])
        ]
        return (*placed, *self.rpn_head(pyramid))


class _Prompter(nn.Module):
    """Regions (N, P, hidden, 14, 14) -> prompts (N, P, tokens, hidden)."""

    def __init__(self, net: AnchorPrompter) -> None:
        super().__init__()
        self.net = net

    def forward(self, regions: Tensor) -> Tensor:
        return self.net.prompts_of(regions)


def grids(image: int) -> tuple[int, ...]:
    """Places along the edge of each level of the pyramid."""
    grid = image // PATCH
    return 4 * grid, 2 * grid, grid, grid // 2, -(-(grid // 2) // 2)


MAPS = ("stride4", "stride8", "stride16", "stride32")


def parts(net: nn.Module) -> dict[str, Part]:
    """What runs one after the other, the host between them: ``proposals`` are suppressed and cut out of the maps as ``regions``
    for the classifier, what that finds is suppressed and cut out again as ``regions`` for the prompter."""
    assert isinstance(net, AnchorPrompter)
    grid, hidden, count = net.image // PATCH, net.hidden, net.shape[1]
    corners = torch.rand(1, net.regions, 4) * net.image
    return {
        "encoder": Part(_Encoder(net), {"image": torch.randn(1, 3, net.image, net.image)}, ("embedding", "features")),
        "proposer": Part(
            _Proposer(net), {"features": torch.randn(1, hidden, grid, grid)}, (*MAPS, "proposals", "likely")
        ),
        "classifier": Part(
            net.bbox_head,
            {"regions": torch.randn(1, net.regions, hidden, BOX, BOX), "rois": corners},
            ("scores", "boxes"),
        ),
        "prompter": Part(_Prompter(net), {"regions": torch.randn(1, count, hidden, MASK, MASK)}, ("prompts",)),
        "decoder": Part(
            Decoder(net),
            {"embedding": torch.randn(1, hidden, grid, grid), "prompts": torch.randn(net.shape)},
            ("masks", "quality"),
        ),
    }


def build(**arch: object) -> nn.Module:
    return AnchorPrompter(**arch)  # type: ignore[arg-type]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Image size, classes and prompt tokens of the checkpoint."""
    found = sam.fit(arch, shapes)
    if "bbox_head.fc_cls.weight" in shapes:
        found = {**found, "classes": shapes["bbox_head.fc_cls.weight"][0] - 1}
    if "point_emb.8.weight" in shapes:
        outputs, hidden = shapes["point_emb.8.weight"]
        found = {**found, "tokens": outputs // (2 * hidden)}
    return found


def features(net: nn.Module, shape: Shape) -> Features:
    """The encoder's layers, whose maps have their channels last, the aggregated map and the pyramid."""
    assert isinstance(net, AnchorPrompter)
    layers = [f"vision_encoder.layers.{i}" for i in range(len(net.vision_encoder.layers))]
    dim, hidden = net.vision_encoder.pos_embed.shape[-1], net.hidden
    levels = [(f"neck.feature_spliter.fpn_convs.{i}", STRIDES[i], hidden) for i in range(4)]
    return (
        *(Feature(name, dim, "NHWC", PATCH) for name in layers),
        *maps(("neck.feature_aggregator", PATCH, hidden), *levels),
    )


FAMILY = Family(build, fit, parts=parts, features=features)
