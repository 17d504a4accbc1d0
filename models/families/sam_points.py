"""SAM with its own prompts: points and corners of boxes instead of embeddings that another network makes.

Source: Kirillov et al. 2023, "Segment Anything"; module names as in transformers' ``SamModel``, so that its files load. The
encoder and the mask decoder are those of :mod:`.sam`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.families.sam import PATCH, SAM, WINDOW, features
from rsedge.models.parts import Part

KINDS = 4
"""Of points: outside, inside, first and last corner of a box; -1 is none."""


class PointPrompts(nn.Module):
    """Points (N, P, M, 2), x and y in pixels of the image, and what each is (N, P, M) -> prompts (N, P, M, hidden)."""

    def __init__(self, image: int, hidden: int) -> None:
        super().__init__()
        self.image = image
        self.point_embed = nn.ModuleList(nn.Embedding(1, hidden) for _ in range(KINDS))
        self.not_a_point_embed = nn.Embedding(1, hidden)

    def forward(self, points: Tensor, labels: Tensor, frequencies: Tensor) -> Tensor:
        """``frequencies`` (2, hidden / 2) are those of the image's places."""
        places = (points + 0.5) / self.image * 2 - 1
        phases = 2 * math.pi * places @ frequencies
        found = torch.cat((phases.sin(), phases.cos()), -1)
        for kind, embedding in enumerate(self.point_embed):
            assert isinstance(embedding, nn.Embedding)
            found = found + (labels == kind).to(found.dtype)[..., None] * embedding.weight
        none = (labels == -1).to(found.dtype)[..., None]
        return none * self.not_a_point_embed.weight + (1 - none) * found


class PointSAM(SAM):
    """x (N, 3, image, image), points (N, P, M, 2), labels (N, P, M) -> mask logits (N, P, 1, image/4, image/4), quality (N, P, 1).

    Args:
        prompts, points: P prompts of M points each, in the exported decoder. With M = 2 a prompt is one point, or a box.
        arch: as of :class:`rsedge.models.families.sam.SAM`.
    """

    def __init__(self, prompts: int = 16, points: int = 2, **arch: Any) -> None:
        super().__init__(prompts=prompts, tokens=points, **arch)
        self.prompt_encoder = PointPrompts(self.image, self.hidden)

    def forward(self, x: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.decode(self.vision_encoder(x), self.embedded(points, labels))

    def embedded(self, points: Tensor, labels: Tensor) -> Tensor:
        """Prompts as the decoder takes them."""
        frequencies = self.shared_image_embedding["positional_embedding"]
        found: Tensor = self.prompt_encoder(points, labels, frequencies)
        return found


class _Decoder(nn.Module):
    """:meth:`PointSAM.decode` with the prompts' own code in front, as a network without the encoder."""

    def __init__(self, sam: PointSAM) -> None:
        super().__init__()
        self.mask_decoder, self.prompt_encoder = sam.mask_decoder, sam.prompt_encoder
        self.dense: Tensor
        self.places: Tensor
        self.frequencies: Tensor
        self.register_buffer("dense", sam.no_mask_embed.weight.detach().reshape(1, -1, 1, 1))
        self.register_buffer("places", sam.positions().detach())
        self.register_buffer("frequencies", sam.shared_image_embedding["positional_embedding"].detach())

    def forward(self, embedding: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        prompts = self.prompt_encoder(points, labels, self.frequencies)
        found: tuple[Tensor, Tensor] = self.mask_decoder(embedding + self.dense, self.places, prompts)
        return found


def parts(net: nn.Module) -> dict[str, Part]:
    """The encoder, run once an image, and the decoder, run on its embedding with points and boxes."""
    assert isinstance(net, PointSAM)
    grid, (_, prompts, points, _) = net.image // PATCH, net.shape
    image, embedding = torch.randn(1, 3, net.image, net.image), torch.randn(1, net.hidden, grid, grid)
    places, labels = net.image * torch.rand(1, prompts, points, 2), torch.ones(1, prompts, points)
    return {
        "encoder": Part(net.vision_encoder, {"image": image}, ("embedding",)),
        "decoder": Part(
            _Decoder(net), {"embedding": embedding, "points": places, "labels": labels}, ("masks", "quality")
        ),
    }


def build(**arch: Any) -> nn.Module:
    return PointSAM(**arch)


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The encoder's size, read from its tensors: image, width, depth, heads, and which blocks attend to the whole image."""
    places = shapes.get("vision_encoder.pos_embed")
    if places is None:
        return arch
    grid, dim = places[1], places[3]
    relative = {
        int(name.split(".")[2]): shape
        for name, shape in shapes.items()
        if name.startswith("vision_encoder.layers.") and name.endswith(".attn.rel_pos_h")
    }
    whole = [i for i, (length, _) in sorted(relative.items()) if length != 2 * WINDOW - 1 or grid == WINDOW]
    found = {
        "image": grid * PATCH,
        "dim": dim,
        "depth": len(relative),
        "heads": dim // next(iter(relative.values()), (0, dim))[1],
        "whole": whole,
        "hidden": shapes.get("mask_decoder.iou_token.weight", (1, 256))[1],
    }
    return {**arch, **found}


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract with the image size of the file."""
    return spec.model_copy(update={"tile": arch.get("image", spec.tile)})


FAMILY = Family(build, fit, parts=parts, features=features, contract=contract)
