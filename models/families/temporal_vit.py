"""ViT over several dates: SatMAE temporal.

Source: Cong et al. 2022, "SatMAE". A token's position is its place (dim - 3 * time_dim numbers) and sines and cosines of its
frame's year, month and hour (time_dim numbers each). These are computed in float32: the authors' double precision fits neither
TensorRT nor ONNX's Einsum, and is not needed (phases stay below 100).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape
from rsedge.models.layers.patches import PatchEmbed
from rsedge.models.layers.vit_blocks import Encoder, Pool, embedding, encoder_features, fit
from rsedge.models.parts import Part

FIRST_YEAR = 2002
"""Years are counted from it."""


class TemporalViT(Encoder):
    """x (N, frames, bands, tile, tile), times (N, frames, 3) -> features (N, dim) or logits (N, classes).

    ``times`` are the year less 2002, the month less 1, and the hour.
    """

    rates: Tensor

    def __init__(
        self,
        bands: int,
        frames: int,
        tile: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        time_dim: int = 128,
        pool: Pool = "token",
        classes: int = 0,
    ) -> None:
        super().__init__(dim, depth, heads, pool, classes)
        self.shape = (1, frames, bands, tile, tile)
        self.patch_embed = PatchEmbed(bands, dim, patch)
        self.cls_token = embedding(1, 1, dim)
        self.pos_embed = embedding(1, (tile // patch) ** 2 + 1, dim - 3 * time_dim)
        half = time_dim // 2
        rates = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("rates", rates.float(), persistent=False)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        when = self.time_embedding(times)
        place = self.pos_embed[:, 1:].expand(x.shape[0], -1, -1)
        first = self.cls_token + torch.cat([self.pos_embed[:, :1], torch.zeros_like(when[:1, :1])], -1)
        tokens = [first.expand(x.shape[0], -1, -1)]
        for frame in range(self.shape[1]):
            date = when[:, frame : frame + 1].expand(-1, place.shape[1], -1)
            tokens.append(self.patch_embed(x[:, frame]) + torch.cat([place, date], -1))
        return self.encode(torch.cat(tokens, 1))

    def time_embedding(self, times: Tensor) -> Tensor:
        """(N, frames, 3) -> (N, frames, 3 * time_dim): for each number the sines, then the cosines."""
        phases = times.float()[..., None] * self.rates
        return torch.cat([phases.sin(), phases.cos()], -1).flatten(2)


def parts(net: nn.Module) -> dict[str, Part]:
    """The encoder: images and their dates are two tensors, so that no band contract holds both."""
    assert isinstance(net, TemporalViT)
    times = torch.tensor([[[2015.0 + i - FIRST_YEAR, 6.0 - 1, 12.0] for i in range(net.shape[1])]])
    return {"encoder": Part(net, {"images": torch.randn(net.shape), "times": times}, ("features",), ("times",))}


def features(net: nn.Module, shape: Shape) -> Features:
    """Blocks and norm; tokens run date by date."""
    assert isinstance(net, TemporalViT)
    return encoder_features(net, shape, net.patch_embed.patch, net.shape[1])


FAMILY = Family(TemporalViT, fit, parts=parts, features=features)
