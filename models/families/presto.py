"""Presto: a transformer over one pixel's monthly series of Sentinel-1, Sentinel-2, weather, terrain and land cover.

Source: Tseng et al. 2023, "Lightweight, pre-trained transformers for remote sensing timeseries". Each group of bands gives a
token per month (terrain one in all), Dynamic World a token per month, the place one token.

All inputs come as one series: the authors' measured bands, then land cover, month and place. NDVI is computed here. A value
of 65535 in a band is missing, as is land cover 9; a group with a missing band has no token for that month.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, vectors
from rsedge.models.layers.masked_blocks import Block, attention_bias, mean_of_present

GROUPS: dict[str, list[int]] = {
    "S1": [0, 1], "S2_RGB": [2, 3, 4], "S2_Red_Edge": [5, 6, 7], "S2_NIR_10m": [8], "S2_NIR_20m": [9],
    "S2_SWIR": [10, 11], "ERA5": [12, 13], "SRTM": [14, 15], "NDVI": [16],
}  # fmt: skip
"""Groups in the order of their channel embeddings, which land cover ends. Columns of the bands, NDVI last."""
RED, NIR, BANDS = 4, 8, 16
LAND_COVER, MONTH, LATITUDE, LONGITUDE = 16, 17, 18, 19
UNKNOWN_COVER = 9
ADD = (25.0, 25.0, *[0.0] * 10, -272.15, 0.0, 0.0, 0.0)
DIVIDE = (25.0, 25.0, *[1e4] * 10, 35.0, 0.03, 2000.0, 50.0)
"""The authors' normalisation of the 16 bands, ``(value + ADD) / DIVIDE``; rows state it as mean and std."""
MISSING_FROM = 60000.0


class Encoder(nn.Module):
    """Series (N, T, 20), bands normalised -> embedding (N, dim).

    Args:
        land_cover: whether land cover makes tokens; False where it is never known.
        months: that one token stands for. More than 1 is for students: tokens of neighbouring months are averaged in each
            group as they enter, so attention has fewer to look at and no weight changes (after Bolya et al. 2023, "Token
            Merging"; here by the calendar, so that the graph is static).
    """

    missing_from: Tensor

    def __init__(self, dim: int, depth: int, heads: int, land_cover: bool, longest: int, months: int = 1) -> None:
        super().__init__()
        self.land_cover, self.months = land_cover, months
        quarter = dim // 4
        self.eo_patch_embed = nn.ModuleDict({name: nn.Linear(len(bands), dim) for name, bands in GROUPS.items()})
        self.dw_embed = nn.Embedding(UNKNOWN_COVER + 1, dim)
        self.latlon_embed = nn.Linear(3, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, fused=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pos_embed = nn.Parameter(torch.randn(1, longest, dim - 2 * quarter), requires_grad=False)
        self.month_embed = nn.Embedding(12, quarter)
        self.channel_embed = nn.Embedding(len(GROUPS) + 1, quarter)
        limits = [(MISSING_FROM + a) / d for a, d in zip(ADD, DIVIDE, strict=True)]
        self.register_buffer("missing_from", torch.tensor(limits), persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        tokens, present = self._tokens(series)
        if self.months > 1:
            tokens, present = zip(*map(self._merged, tokens, present), strict=True)  # type: ignore[assignment]
        place = self.latlon_embed(on_sphere(series[:, :1, LATITUDE], series[:, :1, LONGITUDE]))
        x = torch.cat([place, *tokens], dim=1)
        there = torch.cat([torch.ones_like(present[0][:, :1]), *present], dim=1)
        bias = attention_bias(there)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(mean_of_present(x, there))  # type: ignore[no-any-return]

    def _merged(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, T, dim), present (N, T) -> means of ``months`` neighbours that are there, and whether one is."""
        count = tokens.shape[1]
        if count == 1:
            return tokens, present
        if count % self.months:
            raise RequestError(f"presto: {count} months do not divide into tokens of {self.months}; change arch.months")
        weight = present.unflatten(1, (-1, self.months))
        total = (tokens.unflatten(1, (-1, self.months)) * weight[..., None]).sum(2)
        return total / weight.sum(2).clamp(min=1.0)[..., None], weight.amax(2)

    def _tokens(self, series: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens (N, T or 1, dim) per group, and whether each is there (N, T or 1)."""
        known = (series[..., :BANDS] < self.missing_from).to(series.dtype)
        bands = series[..., :BANDS] * known
        red, nir = bands[..., RED : RED + 1], bands[..., NIR : NIR + 1]
        total = nir + red
        ndvi = torch.where(total > 0, (nir - red) / torch.where(total > 0, total, 1.0), 0.0)
        bands = torch.cat([bands, ndvi], dim=-1)
        known = torch.cat([known, known[..., RED : RED + 1] * known[..., NIR : NIR + 1]], dim=-1)
        tokens, present = [], []
        for index, (name, columns) in enumerate(GROUPS.items()):
            first, last = columns[0], columns[-1] + 1
            token = self.eo_patch_embed[name](bands[..., first:last])
            there = known[..., first:last].amin(-1)
            once = name == "SRTM"
            token = token + self._position(series, index, once)
            tokens.append(token[:, :1] if once else token)
            present.append(there[:, :1] if once else there)
        if self.land_cover:
            cover = series[..., LAND_COVER]
            tokens.append(
                self.dw_embed(cover.long().clamp(0, UNKNOWN_COVER)) + self._position(series, len(GROUPS), False)
            )
            present.append((cover != UNKNOWN_COVER).to(series.dtype))
        return tokens, present

    def _position(self, series: Tensor, channel: int, once: bool) -> Tensor:
        """Month, channel and position in the series, side by side: (N, T, dim); terrain has its channel alone."""
        month = self.month_embed(series[..., MONTH].long().clamp(0, 11))
        position = self.pos_embed[:, : series.shape[1]].expand(len(series), -1, -1)
        name = self.channel_embed.weight[channel].expand(*month.shape[:2], -1)
        if once:
            month, position = torch.zeros_like(month), torch.zeros_like(position)
        return torch.cat([month, name, position], dim=-1)


def on_sphere(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Degrees -> unit vectors, one more axis of 3."""
    latitude, longitude = latitude * (math.pi / 180), longitude * (math.pi / 180)
    flat = torch.cos(latitude)
    return torch.stack([flat * torch.cos(longitude), flat * torch.sin(longitude), torch.sin(latitude)], dim=-1)


class Presto(nn.Module):
    """Series (N, T, 20) -> embedding (N, dim), or logits (N, classes) with a head (one logit: the first class against none)."""

    def __init__(
        self,
        dim: int = 128,
        depth: int = 2,
        heads: int = 8,
        classes: int = 0,
        land_cover: bool = True,
        longest: int = 24,
        months: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(dim, depth, heads, land_cover, longest, months)
        self.head = nn.ModuleDict({"linear": nn.Linear(dim, classes)} if classes else {})

    def forward(self, series: Tensor) -> Tensor:
        embedding = self.encoder(series)
        return self.head["linear"](embedding) if len(self.head) else embedding  # type: ignore[no-any-return]


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks (the place's token first; a token that is missing is there too) and the norm of their mean."""
    assert isinstance(net, Presto)
    dim = net.encoder.norm.normalized_shape[0]
    blocks = [f"encoder.blocks.{i}" for i in range(len(net.encoder.blocks))]
    return (*(Feature(name, dim, "NLC", prefix=1) for name in blocks), *vectors(("encoder.norm", dim)))


FAMILY = Family(Presto, features=features)
