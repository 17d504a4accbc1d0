"""Galileo: a transformer over images and series of many sensors, with patches of 1 to 8 pixels.

Source: Tseng et al. 2025, "Galileo: learning global & local features of many remote sensing modalities". Groups of bands make
tokens over space and time, space, time, or one in all; groups that are not measured have no tokens. The patch size is fixed
when the network is built, so that the resized kernels are constants; the stored ones are 8x8, as published.

Input (N, T, C, H, W): the measured space-time bands, then those of each further group in ``beside`` (constant over what the
group does not vary in), then the month (0 to 11). NDVI is computed from the bands as they come, before normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, tokens
from rsedge.models.layers.masked_blocks import Block

SPACE_TIME = {
    "S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2, "NDVI": 1,
}  # fmt: skip
SPACE = {"SRTM": 2, "DW": 9, "WC": 5}
TIME = {"ERA5": 2, "TC": 3, "VIIRS": 1}
STATIC = {"LS": 1, "location": 3, "DW_static": 9, "WC_static": 5}


class PatchEmbed(nn.Module):
    """(M, C, H, W) -> (M, H / patch, W / patch, dim) by a kernel stored at ``base`` pixels and resized to ``patch``."""

    kernel: Tensor
    resize: Tensor

    def __init__(self, bands: int, dim: int, base: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, dim, base, base)
        self.patch = patch
        self.register_buffer("resize", resize_matrix(base, patch), persistent=False)
        self.register_buffer("kernel", torch.zeros(dim, bands, patch, patch), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.resample())  # type: ignore[no-untyped-call]
        self.resample()

    @torch.no_grad()
    def resample(self) -> None:
        """Takes the kernel anew from the stored weights."""
        self.kernel = self._resized()

    def _resized(self) -> Tensor:
        return (self.proj.weight.flatten(2) @ self.resize.T).unflatten(-1, (self.patch, self.patch))

    def train(self, mode: bool = True) -> PatchEmbed:
        """Takes the kernel anew when training ends; while it lasts, each pass takes its own."""
        super().train(mode)
        if not mode:
            self.resample()
        return self

    def forward(self, x: Tensor) -> Tensor:
        kernel = self._resized() if self.training else self.kernel
        return F.conv2d(x, kernel, self.proj.bias, stride=self.patch).permute(0, 2, 3, 1)


def resize_matrix(base: int, patch: int) -> Tensor:
    """(patch ** 2, base ** 2): kernels so that a patch resized (bicubic, antialiased) gives the stored kernel's answer.

    The pseudo-inverse of the resize, after Beyer et al. 2023, "FlexiViT"; the identity where nothing changes.
    """
    if base == patch:
        return torch.eye(base * base)
    with torch.device("cpu"):
        units = torch.eye(base * base).unflatten(1, (base, base))[:, None]
        resized = F.interpolate(units, (patch, patch), mode="bicubic", antialias=True).flatten(1)
        return torch.linalg.pinv(resized)


class Galileo(nn.Module):
    """(N, T, C, H, W) -> embedding (N, dim): the mean of all tokens after the last norm.

    Args:
        patch: pixels per side of a patch.
        groups: space-time groups that are measured; ``NDVI`` needs ``S2_RGB`` and ``S2_NIR_10m``.
        beside: further groups that are measured, in the order of their bands in the input.
        red_nir: (mean, std) of red and of near infrared, with which the input was normalised, for NDVI.
        series: the input is (N, T, C): one pixel.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        groups: Sequence[str],
        beside: Sequence[str],
        red_nir: Sequence[Sequence[float]],
        series: bool = False,
        base: int = 8,
        longest: int = 24,
    ) -> None:
        super().__init__()
        self.patch, self.groups, self.beside, self.series = patch, tuple(groups), tuple(beside), series
        self.red_nir = red_nir
        quarter = dim // 4
        self.quarter = quarter
        self.blocks = nn.Sequential(*(Block(dim, heads, fused=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.pos_embed = nn.Parameter(torch.randn(longest, quarter), requires_grad=False)
        self.month_embed = nn.Embedding(12, quarter)
        names = {"s_t": SPACE_TIME, "sp": SPACE, "t": TIME, "st": STATIC}
        for name, table in names.items():
            setattr(self, f"{name}_channel_embed", nn.Parameter(torch.zeros(len(table), quarter)))
        self.space_time_embed = nn.ModuleDict({k: PatchEmbed(n, dim, base, patch) for k, n in SPACE_TIME.items()})
        self.space_embed = nn.ModuleDict({k: PatchEmbed(n, dim, base, patch) for k, n in SPACE.items()})
        self.time_embed = nn.ModuleDict({k: nn.Linear(n, dim) for k, n in TIME.items()})
        self.static_embed = nn.ModuleDict({k: nn.Linear(n, dim) for k, n in STATIC.items()})

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x[..., None, None] if self.series else x)
        return self.norm(self.blocks(tokens)).mean(1)  # type: ignore[no-any-return]

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens with their encodings, (N, L, dim)."""
        months = x[:, :, -1, 0, 0].long().clamp(0, 11)
        position = torch.cat([self.pos_embed[: x.shape[1]].expand(len(x), -1, -1), self.month_embed(months)], dim=-1)
        grid = self._grid(x.shape[-1] // self.patch).to(x.device)
        found, column = [], 0
        for name in self.groups:
            if name == "NDVI":
                bands = self._ndvi(x)
            else:
                bands, column = x[:, :, column : column + SPACE_TIME[name]], column + SPACE_TIME[name]
            found.append(self._space_time(name, bands, position, grid))
        for name in self.beside:
            size = 2 if name == "location" else {**SPACE, **TIME, **STATIC}[name]
            found.append(self._beside(name, x[:, :, column : column + size], position, grid))
            column += size
        return torch.cat(found, dim=1)

    def _space_time(self, name: str, bands: Tensor, position: Tensor, grid: Tensor) -> Tensor:
        count, frames = bands.shape[:2]
        embedded = self.space_time_embed[name](bands.flatten(0, 1)).flatten(1, 2).unflatten(0, (count, frames))
        shape = (count, frames, grid.shape[0], -1)
        code = torch.cat(
            [
                self._channel("s_t", SPACE_TIME, name).expand(*shape),
                position[:, :, None].expand(*shape),
                grid.expand(*shape),
            ],
            dim=-1,
        )
        return (embedded + code).flatten(1, 2)

    def _beside(self, name: str, bands: Tensor, position: Tensor, grid: Tensor) -> Tensor:
        count, frames = bands.shape[:2]
        none = bands.new_zeros(1)
        if name in SPACE:
            embedded = self.space_embed[name](bands[:, 0]).flatten(1, 2)
            code = [
                self._channel("sp", SPACE, name).expand(len(grid), -1),
                none.expand(len(grid), 2 * self.quarter),
                grid,
            ]
            return embedded + torch.cat(code, dim=-1)
        pixel = bands[..., 0, 0]
        if name in TIME:
            channel = self._channel("t", TIME, name).expand(count, frames, -1)
            code = [channel, position, none.expand(count, frames, self.quarter)]
            return self.time_embed[name](pixel) + torch.cat(code, dim=-1)  # type: ignore[no-any-return]
        values = pixel[:, :1]
        if name == "location":
            latitude, longitude = (values[..., i] * (math.pi / 180) for i in (0, 1))
            flat = torch.cos(latitude)
            values = torch.stack(
                [flat * torch.cos(longitude), flat * torch.sin(longitude), torch.sin(latitude)], dim=-1
            )
        code = [self._channel("st", STATIC, name), none.expand(3 * self.quarter)]
        return self.static_embed[name](values) + torch.cat(code)  # type: ignore[no-any-return]

    def _channel(self, kind: str, table: dict[str, int], name: str) -> Tensor:
        table_of: Tensor = self.get_parameter(f"{kind}_channel_embed")
        return table_of[list(table).index(name)]

    def _ndvi(self, x: Tensor) -> Tensor:
        """(nir - red) / (nir + red) of the physical values; 0 where the sum is not above 0."""
        columns = {}
        start = 0
        for name in self.groups:
            columns[name] = start
            start += SPACE_TIME[name]
        bands = (x[:, :, columns["S2_RGB"] + 2, None], x[:, :, columns["S2_NIR_10m"], None])
        red, nir = (band * std + mean for band, (mean, std) in zip(bands, self.red_nir, strict=True))
        total = nir + red
        return torch.where(total > 0, (nir - red) / torch.where(total > 0, total, 1.0), 0.0)

    def _grid(self, side: int) -> Tensor:
        """Sines and cosines of where patches lie (side ** 2, quarter), across then down, in units of 10 m."""
        half = self.quarter // 2
        # The published frequencies divide by twice the width instead of half of it.
        frequencies = 1 / 10000 ** (torch.arange(half // 2) / half / 2)
        angles = torch.arange(side)[:, None] * float(self.patch) * frequencies
        line = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return torch.cat([line.repeat(side, 1), line.repeat_interleave(side, 0)], dim=-1)


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks and the norm; tokens of space and time come first, group by group and date by date."""
    assert isinstance(net, Galileo)
    dim, names = net.norm.normalized_shape[0], [*(f"blocks.{i}" for i in range(len(net.blocks))), "norm"]
    if net.series:
        return tuple(Feature(name, dim, "NLC") for name in names)
    return tokens(names, dim, shape, net.patch, planes=len(net.groups) * shape[0])


FAMILY = Family(Galileo, features=features)
