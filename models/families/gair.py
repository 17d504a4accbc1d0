"""GAIR: a satellite encoder that answers for a place within its tile, a street-view encoder and a location encoder.

Source: Liu et al. 2025, "GAIR". The satellite encoder is CROMA's optical ViT (Fuller et al. 2023): no positions, but a bias of
attention that falls with distance (ALiBi in two dimensions). The localised query is that of LIIF (Chen et al. 2021): four
nearest patches with their neighbours, weighed by area; here the nearest patch is picked by a product with 0 and 1, since
grid sampling is missing or slow on some devices. The location encoder is GeoCLIP's with longitude first.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, numbered, tokens, vectors
from rsedge.models.layers.attention import attend, split
from rsedge.models.layers.mlp import mlp
from rsedge.models.layers.patches import as_tokens

SHIFT = 1e-6


class Attention(nn.Module):
    """Pre-norm attention (N, L, dim) -> same, with a fixed bias (1, heads, L, L)."""

    heads_stay = "all layers share one distance bias, with a slope for each head"

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.input_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        parts = self.to_qkv(self.input_norm(x)).chunk(3, dim=-1)
        q, k, v = (split(part, self.heads) for part in parts)
        return self.to_out(attend(q, k, v, bias))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Pre-norm MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = mlp(dim, 4 * dim, names=("0", "3"))
        self.input_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.input_norm(x))  # type: ignore[no-any-return]


class OpticalViT(nn.Module):
    """x (N, bands, tile, tile) -> patch tokens (N, (tile / patch) ** 2, dim)."""

    bias: Tensor

    def __init__(self, bands: int, tile: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = patch
        self.linear_input = nn.Linear(patch * patch * bands, dim)
        layers = (nn.ModuleList([Attention(dim, heads), FeedForward(dim)]) for _ in range(depth))
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.register_buffer("bias", distance_bias(tile // patch, heads), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        side, p = x.shape[-1] // self.patch, self.patch
        pixels = x.reshape(len(x), -1, side, p, side, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        tokens = self.linear_input(pixels)
        for attention, feed_forward in self.transformer["layers"]:  # type: ignore[attr-defined,unused-ignore]
            tokens = tokens + attention(tokens, self.bias)
            tokens = tokens + feed_forward(tokens)
        return tokens  # type: ignore[no-any-return]


def distance_bias(side: int, heads: int) -> Tensor:
    """Minus the distance of patches times each head's slope, (1, heads, side ** 2, side ** 2); heads a power of 2."""
    with torch.device("cpu"):
        place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
        slopes = 2.0 ** (-8 / heads * torch.arange(1, heads + 1).double())
        return (-torch.cdist(place, place) * slopes[:, None, None])[None].float()


class Satellite(nn.Module):
    """x (N, bands, tile, tile) -> embedding (N, dim): the mean of the patches."""

    def __init__(
        self, bands: int = 10, tile: int = 96, patch: int = 8, dim: int = 768, depth: int = 12, heads: int = 16
    ) -> None:
        super().__init__()
        self.s2_encoder = OpticalViT(bands, tile, patch, dim, depth, heads)

    def forward(self, x: Tensor) -> Tensor:
        return self.s2_encoder(x).mean(1)  # type: ignore[no-any-return]


class Query(Satellite):
    """x (N, bands + 2, tile, tile) -> embedding (N, dim) of one place in the tile.

    The last two bands hold the place at every pixel: its share of the way from west to east, and from north to south, 0 to 1.
    """

    def __init__(
        self, bands: int = 10, tile: int = 96, patch: int = 8, dim: int = 768, depth: int = 12, heads: int = 16
    ) -> None:
        super().__init__(bands, tile, patch, dim, depth, heads)
        self.imnet = nn.Linear(9 * dim + 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        place = x[:, -2:, 0, 0] * 2 - 1
        return self.at(self.s2_encoder(x[:, :-2]), place)

    def at(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Tokens (N, side ** 2, dim) and a place (N, 2), -1 to 1 east and south -> (N, dim)."""
        side = math.isqrt(tokens.shape[1])
        near = neighbours(tokens.transpose(1, 2).unflatten(2, (side, side)))
        numbers = torch.arange(side, device=place.device)
        # Rounded as the authors round them: at the centres of the last patches all areas are nothing but what rounding left.
        centres = -1 + 1 / side + 2 / side * numbers.float()
        answers, areas = [], []
        for east in (-1, 1):
            for south in (-1, 1):
                step = place.new_tensor([east / side + SHIFT, south / side + SHIFT])
                corner = (place + step).clamp(-1 + SHIFT, 1 - SHIFT)
                index = torch.round(((corner + 1) * side - 1) / 2)
                column, row = ((index[:, i : i + 1] == numbers).float() for i in (0, 1))
                offset = (place - torch.stack([column @ centres, row @ centres], -1)) * side
                picked = (near @ (row[:, :, None] * column[:, None]).flatten(1)[..., None])[..., 0]
                answers.append(self.imnet(torch.cat([picked, offset], dim=-1)))
                areas.append((offset[:, :1] * offset[:, 1:]).abs() + 1e-9)
        total = areas[0] + areas[1] + areas[2] + areas[3]
        # Each corner counts with the area towards the opposite one.
        parts = [answer * (area / total) for answer, area in zip(answers, reversed(areas), strict=True)]
        return parts[0] + parts[1] + parts[2] + parts[3]


def neighbours(grid: Tensor) -> Tensor:
    """(N, C, side, side) -> each patch with its 8 neighbours (0 outside), (N, 9 * C, side ** 2), channel by channel."""
    side = grid.shape[-1]
    padded = F.pad(grid, (1, 1, 1, 1))
    shifted = [padded[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3)]
    return torch.stack(shifted, dim=2).flatten(1, 2).flatten(2)


class Street(nn.Module):
    """x (N, 3, tile, tile) -> embedding (N, dim): transformers' ViT with its pooler, in timm's names."""

    def __init__(self, tile: int = 224, patch: int = 16, dim: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-12)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (tile // patch) ** 2 + 1, dim))
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.Sequential(*(Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
        self.norm, self.pooler = norm(dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        patches = as_tokens(self.patch_embed(x))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        return torch.tanh(self.pooler(self.norm(self.blocks(tokens))[:, 0]))


PARTS: dict[str, type[nn.Module]] = {"satellite": Satellite, "query": Query, "street": Street}


def build(part: str, **arch: int) -> nn.Module:
    """One of :data:`PARTS`; the location encoder is of the family ``geoclip``."""
    return PARTS[part](**arch)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of the street encoder in one matrix."""
    joined = {
        k: v for k, v in state.items() if ".attn.query." not in k and ".attn.key." not in k and ".attn.value." not in k
    }
    for name in state:
        if ".attn.query." in name:
            parts = [state.get(name.replace(".query.", f".{n}.")) for n in ("query", "key", "value")]
            found = [p for p in parts if p is not None]
            joined[name.replace(".query.", ".qkv.")] = torch.cat(found)
    return joined


def features(net: nn.Module, shape: Shape) -> Features:
    """The satellite encoder's patches (its layers give what is added to them); of the street view all blocks and the pooler."""
    if isinstance(net, Satellite):
        encoder = net.s2_encoder
        return tokens(["s2_encoder"], encoder.linear_input.out_features, shape, encoder.patch)
    assert isinstance(net, Street)
    dim, patch = net.patch_embed.out_channels, net.patch_embed.stride[0]
    return (
        *tokens([*numbered("blocks", len(net.blocks)), "norm"], dim, shape, patch, 1),
        *vectors(("pooler", dim)),
    )


FAMILY = Family(build, convert=convert, features=features)
