"""Aquila's image side, built from its published description: no code and no weights were released.

Source: Lu et al. 2024, "Aquila: A Hierarchically Aligned Visual-Language Model for Enhanced Remote Sensing Image Comprehension":
a ConvNeXt tower, whose four scales learned queries read by cross-attention (SFI). The paper's second injection of these tokens
into layers of the language model (MDA) is not built. Widths and the number of queries are ours.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, maps
from rsedge.models.layers.attention import attend_by_products, split
from rsedge.models.layers.mlp import mlp
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part


class Aquila(nn.Module):
    """x (N, 3, image, image) -> tokens (N, queries, width): the queries after reading all four scales, fine to coarse."""

    def __init__(
        self,
        image: int = 1024,
        width: int = 4096,
        queries: int = 256,
        tower: str = "convnext_large",
        dim: int = 1024,
        heads: int = 16,
    ) -> None:
        super().__init__()
        self.image = image
        self.tower = timm.create_model(tower, pretrained=False, features_only=True)
        self.queries = nn.Parameter(torch.randn(1, queries, dim) * 0.02)
        scales = self.tower.feature_info.channels()
        self.readers = nn.ModuleList(Reader(dim, channels, heads) for channels in scales)
        self.projector = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        for reader, scale in zip(self.readers, self.tower(x), strict=True):
            queries = reader(queries, as_tokens(scale))
        return self.projector(queries)  # type: ignore[no-any-return]


class Reader(nn.Module):
    """Cross-attention of queries (N, Q, dim) to the pixels (N, L, channels) of one scale, then an MLP."""

    def __init__(self, dim: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.norm_queries, self.norm_pixels, self.norm_mlp = (
            nn.LayerNorm(dim),
            nn.LayerNorm(channels),
            nn.LayerNorm(dim),
        )
        self.to_q, self.to_kv, self.proj = nn.Linear(dim, dim), nn.Linear(channels, 2 * dim), nn.Linear(dim, dim)
        self.mlp = mlp(dim, 4 * dim, names=("0", "2"))

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        q = split(self.to_q(self.norm_queries(queries)), self.heads)
        k, v = self.to_kv(self.norm_pixels(pixels)).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        queries = queries + self.proj(attend_by_products(q, k, v, self.scale))
        return queries + self.mlp(self.norm_mlp(queries))  # type: ignore[no-any-return]


def parts(net: nn.Module) -> dict[str, Part]:
    """The whole image side."""
    assert isinstance(net, Aquila)
    return {"front": Part(net, {"image": torch.randn(1, 3, net.image, net.image)}, ("tokens",))}


def build(**arch: object) -> nn.Module:
    return Aquila(**arch)  # type: ignore[arg-type]


def features(net: nn.Module, shape: Shape) -> Features:
    """The tower's four scales, as timm declares them, and the queries after each reader and the projection."""
    assert isinstance(net, Aquila)
    scales = zip(net.tower.feature_info.reduction(), net.tower.feature_info.channels(), strict=True)
    read = [(f"readers.{i}", net.queries.shape[-1]) for i in range(len(net.readers))]
    last: Any = net.projector[1]
    return (
        *maps(*((f"tower[{i}]", stride, channels) for i, (stride, channels) in enumerate(scales))),
        *(Feature(name, width, "NLC") for name, width in [*read, ("projector", last.out_features)]),
    )


FAMILY = Family(build, parts=parts, features=features)
