"""ViT over tokens of neighbouring bands and pixels: SpectralGPT and SpectralGPT+.

Source: Hong et al. 2024, "SpectralGPT". The authors' 3-D patch convolution (bands x 8 x 8) does not overlap along the bands,
so it is computed as a 2-D one on groups of bands, exactly, which every runtime has. Kept from the authors' code: no class
token, yet pooling leaves out the first token; ``norm`` comes after pooling; query, key and value have a matrix each.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, numbered, tokens, vectors
from rsedge.models.layers.masked_blocks import Attention
from rsedge.models.layers.patches import as_tokens
from rsedge.models.layers.vit_blocks import block, embedding, norm

Positions = Literal["separate", "joint"]


class PatchEmbed3d(nn.Module):
    """x (N, bands, H, W) -> tokens (N, bands / depth * patches, dim), group of bands by group."""

    def __init__(self, depth: int, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, dim, (depth, patch, patch), (depth, patch, patch))

    def forward(self, x: Tensor) -> Tensor:
        depth, patch, _ = self.proj.kernel_size
        groups = x.unflatten(1, (-1, depth))  # type: ignore[no-untyped-call]
        images = F.conv2d(groups.flatten(0, 1), self.proj.weight[:, 0], self.proj.bias, stride=patch)
        tokens = as_tokens(images).unflatten(0, (x.shape[0], -1))  # type: ignore[no-untyped-call]
        return tokens.flatten(1, 2)


class SpectralViT(nn.Module):
    """x (N, bands, tile, tile) -> features (N, dim) or logits (N, classes).

    Args:
        group: neighbouring bands per token.
        positions: ``separate``: a spatial and a spectral embedding, added; ``joint``: one per token (the default of the
            authors' fine-tuning, which leaves the pretrained positions unused).
    """

    def __init__(
        self,
        bands: int,
        tile: int,
        patch: int,
        group: int,
        dim: int,
        depth: int,
        heads: int,
        positions: Positions = "separate",
        classes: int = 0,
    ) -> None:
        super().__init__()
        places, self.groups = (tile // patch) ** 2, bands // group
        self.patch_embed = PatchEmbed3d(group, patch, dim)
        self.positions = positions
        if positions == "separate":
            self.pos_embed_spatial = embedding(1, places, dim)
            self.pos_embed_temporal = embedding(1, self.groups, dim)
        else:
            self.pos_embed = embedding(1, places * self.groups, dim)
        self.blocks = nn.Sequential(*(_block(dim, heads) for _ in range(depth)))
        self.norm = norm(dim)
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.patch_embed(x) + self._position())
        return self.head(self.norm(tokens[:, 1:].mean(1)))  # type: ignore[no-any-return]

    def _position(self) -> Tensor:
        if self.positions == "joint":
            return self.pos_embed
        return (self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]).flatten(1, 2)


def _block(dim: int, heads: int) -> nn.Module:
    made = block(dim, heads)
    made.attn = Attention(dim, heads, fused=False)
    return made


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """A head of the checkpoint's classes, its tile, and joint positions where it has those."""
    found = dict(arch)
    if "pos_embed_spatial" in shapes:
        found["tile"] = math.isqrt(shapes["pos_embed_spatial"][1]) * arch["patch"]
    if "head.weight" in shapes:
        found["classes"] = shapes["head.weight"][0]
    if "pos_embed" in shapes:
        places = shapes["pos_embed"][1] * arch["group"] // arch["bands"]
        found |= {"positions": "joint", "tile": math.isqrt(places) * arch["patch"]}
    return found


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's tile."""
    return spec.model_copy(update={"tile": arch["tile"]})


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks, whose tokens run group of bands by group, and the norm of their mean."""
    assert isinstance(net, SpectralViT)
    dim, patch = net.norm.normalized_shape[0], net.patch_embed.proj.kernel_size[-1]
    blocks = numbered("blocks", len(net.blocks))
    return (*tokens(blocks, dim, shape, patch, planes=net.groups), *vectors(("norm", dim)))


FAMILY = Family(SpectralViT, fit, features=features, contract=contract)
