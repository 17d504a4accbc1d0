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
from rsedge.models.layers.masked_blocks import Block, attention_bias, attention_bias_of_sizes, mean_of_present
from rsedge.models.layers.stream import Stream

GROUPS: dict[str, list[int]] = {
    "S1": [0, 1], "S2_RGB": [2, 3, 4], "S2_Red_Edge": [5, 6, 7], "S2_NIR_10m": [8], "S2_NIR_20m": [9],
    "S2_SWIR": [10, 11], "ERA5": [12, 13], "SRTM": [14, 15], "NDVI": [16],
}  # fmt: skip
"""Groups in the order of their channel embeddings, which land cover ends. Columns of the bands, NDVI last."""
ONCE = "SRTM"
"""The group of one token, without month and position."""
MONTHLY = [name for name in GROUPS if name != ONCE]
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
            Merging"; here by the calendar, so that the graph is static). They count as the months that they stand for.
    """

    missing_from: Tensor
    members: Tensor

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
        members = torch.tensor([[float(i in GROUPS[name]) for name in MONTHLY] for i in range(BANDS + 1)])
        self.register_buffer("members", members, persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        bands, known = self._bands(series)
        tokens, present = self._monthly(series, bands, known)
        if self.months > 1:
            tokens, present = self._merged(tokens, present)
        place = self.latlon_embed(on_sphere(series[:, :1, LATITUDE], series[:, :1, LONGITUDE]))
        terrain, shown = self._terrain(bands, known)
        x = torch.cat([place, terrain, tokens.flatten(1, 2)], dim=1)
        there = torch.cat([torch.ones_like(shown), shown, present.flatten(1)], dim=1)
        bias = attention_bias(there) if self.months == 1 else attention_bias_of_sizes(there)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(mean_of_present(x, there))  # type: ignore[no-any-return]

    def _bands(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Bands with NDVI (N, T, 17), missing ones 0, and which are known."""
        known = (series[..., :BANDS] < self.missing_from).to(series.dtype)
        bands = series[..., :BANDS] * known
        red, nir = bands[..., RED : RED + 1], bands[..., NIR : NIR + 1]
        total = nir + red
        ndvi = torch.where(total > 0, (nir - red) / torch.where(total > 0, total, 1.0), 0.0)
        both = known[..., RED : RED + 1] * known[..., NIR : NIR + 1]
        return torch.cat([bands, ndvi], dim=-1), torch.cat([known, both], dim=-1)

    def _monthly(self, series: Tensor, bands: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, G, T, dim) of the groups that have one a month, and whether each is there (N, G, T).

        All groups go on together: a runtime takes as long for a small operation as for one that is nine times its size.
        """
        made = [self.eo_patch_embed[name](_group(bands, name)) for name in MONTHLY]
        # A token is there where none of its bands is missing.
        there = (((1 - known) @ self.members) < 0.5).to(series.dtype).transpose(1, 2)
        channels = [list(GROUPS).index(name) for name in MONTHLY]
        if self.land_cover:
            cover = series[..., LAND_COVER]
            made.append(self.dw_embed(cover.long().clamp(0, UNKNOWN_COVER)))
            there = torch.cat([there, (cover != UNKNOWN_COVER).to(series.dtype)[:, None]], dim=1)
            channels.append(len(GROUPS))
        return torch.stack(made, dim=1) + self._codes(series, channels), there

    def _merged(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, G, T, dim), present (N, G, T) -> means of ``months`` neighbours that are there, and how many are."""
        count = tokens.shape[2]
        if count % self.months:
            raise RequestError(f"presto: {count} months do not divide into tokens of {self.months}; change arch.months")
        weight = present.unflatten(2, (-1, self.months))
        total = (tokens.unflatten(2, (-1, self.months)) * weight[..., None]).sum(3)
        size = weight.sum(3)
        return total / size.clamp(min=1.0)[..., None], size

    def _terrain(self, bands: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """The token of the terrain (N, 1, dim), which has a code of its channel alone, and whether it is there (N, 1)."""
        month, position = self.month_embed.weight.shape[1], self.pos_embed.shape[-1]
        channel = self.channel_embed.weight[list(GROUPS).index(ONCE)]
        code = torch.cat([channel.new_zeros(month), channel, channel.new_zeros(position)])
        return self.eo_patch_embed[ONCE](_group(bands[:, :1], ONCE)) + code, _group(known[:, :1], ONCE).amin(-1)

    def _codes(self, series: Tensor, channels: list[int]) -> Tensor:
        """Month, channel and position in the series, side by side: (N, G, T, dim).

        Pruning may have left nothing of one of them, and runtimes take no empty tensor.
        """
        count, months = series.shape[:2]
        shape = (count, len(channels), months, -1)
        codes: list[Tensor] = []
        if self.month_embed.weight.shape[1]:
            month = self.month_embed(series[..., MONTH].long().clamp(0, 11))
            codes.append(month[:, None].expand(shape))
        if self.channel_embed.weight.shape[1]:
            codes.append(self.channel_embed.weight[channels][None, :, None].expand(shape))
        if self.pos_embed.shape[-1]:
            codes.append(self.pos_embed[:, None, :months].expand(shape))
        return torch.cat(codes, dim=-1)


def _group(columns: Tensor, name: str) -> Tensor:
    """Those of a group's bands."""
    return columns[..., GROUPS[name][0] : GROUPS[name][-1] + 1]


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

    def streams(self) -> list[Stream]:
        """For pruning: what goes with the width. Codes of month, channel and position lie in it side by side."""
        encoder = self.encoder
        month, name = encoder.month_embed.weight.shape[1], encoder.channel_embed.weight.shape[1]
        codes = {
            "month_embed.weight": 0,
            "channel_embed.weight": month,
            "pos_embed": month + name,
            "dw_embed.weight": 0,
        }
        made = ["latlon_embed", *(f"eo_patch_embed.{group}" for group in encoder.eo_patch_embed)]
        return [
            Stream(
                tuple(f"encoder.{name}" for name in made), ("encoder.blocks",),
                {f"encoder.{code}": start for code, start in codes.items()}, ("encoder.norm",),
                tuple(f"head.{name}" for name in self.head),
            )
        ]  # fmt: skip

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
