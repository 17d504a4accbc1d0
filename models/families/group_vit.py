"""ViT over groups of bands: SatMAE and SatMAE++ multispectral.

Source: Cong et al. 2022, "SatMAE". Each group of bands has its own patch embedding; a token's position is the concatenation
of its place (dim - channel_dim numbers) and its group (channel_dim numbers). Tokens run group by group.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape
from rsedge.models.layers.patches import PatchEmbed
from rsedge.models.layers.vit_blocks import Encoder, Pool, embedding, encoder_features, fit


class GroupViT(Encoder):
    """x (N, bands, tile, tile) -> features (N, dim) or logits (N, classes)."""

    def __init__(
        self,
        tile: int,
        patch: int,
        groups: Sequence[Sequence[int]],
        dim: int,
        depth: int,
        heads: int,
        channel_dim: int = 256,
        pool: Pool = "token",
        classes: int = 0,
    ) -> None:
        super().__init__(dim, depth, heads, pool, classes)
        self.runs = [_runs(group) for group in groups]
        self.patch_embed = nn.ModuleList(PatchEmbed(len(group), dim, patch) for group in groups)
        self.cls_token = embedding(1, 1, dim)
        self.pos_embed = embedding(1, (tile // patch) ** 2 + 1, dim - channel_dim)
        self.channel_embed = embedding(1, len(groups), channel_dim)
        self.channel_cls_embed = embedding(1, 1, channel_dim)

    def forward(self, x: Tensor) -> Tensor:
        place = self.pos_embed[:, 1:]
        tokens = [self.cls_token + torch.cat([self.pos_embed[:, :1], self.channel_cls_embed], -1)]
        tokens[0] = tokens[0].expand(x.shape[0], -1, -1)
        for index, (runs, embed) in enumerate(zip(self.runs, self.patch_embed, strict=True)):
            # Slices with fixed ends: an index list would be exported as GatherND.
            bands = torch.cat([x[:, a:b] for a, b in runs], 1)
            group = self.channel_embed[:, index : index + 1].expand(-1, place.shape[1], -1)
            tokens.append(embed(bands) + torch.cat([place, group], -1))
        return self.encode(torch.cat(tokens, 1))


def _runs(group: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open runs of neighbouring bands, in order: (0, 1, 2, 6) -> (0, 3), (6, 7)."""
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(group)) if b != a + 1), len(group)]
    return [(group[a], group[b - 1] + 1) for a, b in pairwise(starts)]


def features(net: nn.Module, shape: Shape) -> Features:
    """Blocks and norm; tokens run group of bands by group."""
    assert isinstance(net, GroupViT)
    first: Any = net.patch_embed[0]
    return encoder_features(net, shape, first.patch, len(net.patch_embed))


FAMILY = Family(GroupViT, fit, features=features)
