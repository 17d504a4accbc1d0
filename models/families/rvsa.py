"""Rotated varied-size window attention (RVSA) in a plain ViT or in ViTAE.

Source: Wang et al. 2022, "Advancing Plain Vision Transformer Toward Remote Sensing Foundation Model" (TGRS). Every third block
has full attention with decomposed relative positions; in the others each head moves, scales and turns its 7x7 windows.
The KVDIFF variants do that for keys and values apart; ViTAE adds a convolutional branch (PCM) to every block.
:class:`RVSAPyramid` is the backbone of the authors' segmenters and detectors, whose families lie beside this one.

The image size is fixed when the network is built, so that all reference grids are constants and the graph is static: what is
left of the sampling is one ``GridSample`` each for keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, maps, numbered, tokens
from rsedge.models.layers.mlp import mlp
from rsedge.models.layers.patches import PatchEmbed

WINDOW = 7
PATCH = 16
STRIDES = (4, 8, 16, 32)
"""Of the maps of a pyramid."""


class RVSA(nn.Module):
    """x (N, bands, image, image) -> logits (N, classes), or features (N, dim) where ``classes`` is 0.

    Args:
        apart: windows of their own for keys and for values (KVDIFF).
        vitae: the convolutional branch of ViTAE, and biases of query and value only.
        bias: whether query, key and value have biases at all.
        interval: every ``interval``-th block has full attention.
        own_angles: where keys and values have windows apart, whether those of values have angles of their own. The authors' code
            took those of keys until June 2023 (issue 16 of their repository).
    """

    def __init__(
        self,
        image: int = 224,
        bands: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        classes: int = 0,
        apart: bool = False,
        vitae: bool = False,
        interval: int = 3,
        bias: bool = True,
        own_angles: bool = True,
    ) -> None:
        super().__init__()
        grid = image // PATCH
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, dim))
        self.patch_embed = PatchEmbed(bands, dim, PATCH)
        kind = {"apart": apart, "vitae": vitae, "bias": bias, "own_angles": own_angles}
        self.blocks = nn.Sequential(
            *(RVSABlock(dim, heads, grid, (i + 1) % interval != 0, **kind) for i in range(depth))
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        # The first row of the position embedding is that of a class token, which these networks do not have.
        tokens = self.patch_embed(x) + self.pos_embed[:, 1:]
        return self.head(self.norm(self.blocks(tokens).mean(1)))  # type: ignore[no-any-return]


class RVSAPyramid(nn.Module):
    """x (N, bands, image, image) -> maps (N, dim, image / s, image / s) for the strides s of :data:`STRIDES`.

    There is no row of a class token in the position embedding here.

    Args:
        taps: blocks of whose tokens the maps are made, the finest first. Without any, all are made of the last, after the norm,
            as detectors do; segmenters carry that norm and never use it.
        joint: whether query, key and value of windows have one bias even in ViTAE (the authors' KVDIFF detectors).
        others: as in :class:`RVSA`.
    """

    def __init__(
        self,
        image: int,
        bands: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        apart: bool = False,
        vitae: bool = False,
        interval: int = 3,
        bias: bool = True,
        own_angles: bool = True,
        joint: bool = False,
        taps: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.grid, self.taps = image // PATCH, tuple(taps)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, dim))
        self.patch_embed = PatchEmbed(bands, dim, PATCH)
        kind = {"apart": apart, "vitae": vitae, "bias": bias, "own_angles": own_angles, "joint": joint}
        self.blocks = nn.ModuleList(
            RVSABlock(dim, heads, self.grid, (i + 1) % interval != 0, **kind) for i in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fpn1 = nn.Sequential(_doubled(dim), Norm2d(dim), nn.GELU(), _doubled(dim))
        self.fpn2 = nn.Sequential(_doubled(dim))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2, 2)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tokens = self.patch_embed(x) + self.pos_embed
        found = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i in self.taps:
                found.append(tokens)
        levels = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        found = found or [self.norm(tokens)] * len(levels)
        return tuple(
            level(t.transpose(-2, -1).unflatten(2, (self.grid, self.grid)))
            for level, t in zip(levels, found, strict=True)
        )

    def features(self, shape: Shape) -> Features:
        """All blocks and the maps."""
        dim = self.pos_embed.shape[-1]
        blocks = tokens([f"blocks.{i}" for i in range(len(self.blocks))], dim, shape, PATCH)
        return (*blocks, *maps(*((f"fpn{i}", stride, dim) for i, stride in enumerate(STRIDES, 1))))


def _doubled(dim: int) -> nn.Module:
    return nn.ConvTranspose2d(dim, dim, 2, 2)


class Norm2d(nn.Module):
    """A layer norm of the channels of maps (N, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class RVSABlock(nn.Module):
    """Pre-norm attention, in ViTAE beside a convolutional branch, and MLP over tokens (N, grid * grid, dim)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        grid: int,
        windows: bool,
        apart: bool,
        vitae: bool,
        bias: bool,
        own_angles: bool = True,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.vitae = grid, vitae
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        attention = (
            WindowAttention(dim, heads, grid, apart, vitae and not joint, bias, own_angles)
            if windows
            else FullAttention(dim, heads, grid, vitae, bias)
        )
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim, 4 * dim)
        if vitae:
            self.PCM = nn.Sequential(
                nn.Conv2d(dim, 4 * dim, 3, padding=1, groups=dim // 4),
                nn.BatchNorm2d(4 * dim),
                nn.SiLU(),
                nn.Conv2d(4 * dim, dim, 3, padding=1, groups=dim // 4),
            )

    def forward(self, x: Tensor) -> Tensor:
        attended = x + self.attn(self.norm1(x))
        if self.vitae:
            attended = attended + self.PCM(x.transpose(-2, -1).unflatten(2, (self.grid, self.grid))).flatten(
                2
            ).transpose(-2, -1)
        return attended + self.mlp(self.norm2(attended))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Projections and decomposed relative positions over squares of ``size`` tokens."""

    def __init__(self, dim: int, heads: int, size: int, vitae: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.size, self.scale = heads, size, (dim // heads) ** -0.5
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.apart_bias = vitae and bias
        if self.apart_bias:
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias and not vitae)
        self.proj = nn.Linear(dim, dim)
        steps = torch.arange(size)
        self.register_buffer("_distance", steps[:, None] - steps[None, :] + size - 1, persistent=False)
        self._distance: Tensor

    def project(self, x: Tensor) -> Tensor:
        """Tokens (N, L, dim) -> queries, keys and values (N, L, 3 * dim)."""
        if not self.apart_bias:
            return self.qkv(x)  # type: ignore[no-any-return]
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        return F.linear(x, self.qkv.weight, bias)

    def relative(self, q: Tensor) -> Tensor:
        """What distances add to the attention of queries (B, heads, size^2, C): (B, heads, size^2, size^2)."""
        squares = q.unflatten(2, (self.size, self.size))
        # Matrix products (h, w, C) x (h, C, k): batched over rows, then over columns.
        rows = squares @ self.rel_pos_h[self._distance].transpose(-2, -1)
        columns = (squares.transpose(2, 3) @ self.rel_pos_w[self._distance].transpose(-2, -1)).transpose(2, 3)
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class FullAttention(_Attention):
    """Attention over the whole grid."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * self.scale
        weights = (q @ k.transpose(-2, -1) + self.relative(q)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class WindowAttention(_Attention):
    """Attention of 7x7 windows to keys and values sampled from windows that each head moves, scales and turns."""

    relative_position_index: Tensor
    _centres: Tensor
    _around: Tensor

    def __init__(
        self, dim: int, heads: int, grid: int, apart: bool, vitae: bool, bias: bool, own_angles: bool = True
    ) -> None:
        super().__init__(dim, heads, WINDOW, vitae, bias)
        self.grid, self.own_angles = grid, own_angles
        self.windows = -(-grid // WINDOW)
        before = (self.windows * WINDOW - grid) // 2
        self.margins = (before, self.windows * WINDOW - grid - before)
        self.suffixes = ("_k", "_v") if apart else ("",)
        for suffix in self.suffixes:
            for name, values in (("offsets", 2), ("scales", 2), ("angles", 1)):
                self.add_module(f"sampling_{name}{suffix}", _predictor(dim, heads * values))
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        rows, columns = self._distance, self._distance
        index = rows[:, None, :, None] * (2 * WINDOW - 1) + columns[None, :, None, :]
        self.register_buffer("relative_position_index", index.reshape(WINDOW**2, WINDOW**2))
        centres, around = _reference(self.windows)
        self.register_buffer("_centres", centres, persistent=False)
        self.register_buffer("_around", around, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, edge = x.shape[0], self.windows * WINDOW
        padded = self._pad(x.transpose(-2, -1).unflatten(2, (self.grid, self.grid)))
        qkv = self._pad(self.project(x).transpose(-2, -1).unflatten(2, (self.grid, self.grid)))
        q, k, v = qkv.reshape(n, 3, self.heads, -1, edge, edge).unbind(1)
        grids = [self._places(padded, suffix) for suffix in self.suffixes]
        k, v = (
            F.grid_sample(t.flatten(0, 1), g, "bilinear", "zeros", align_corners=True).reshape(t.shape)
            for t, g in ((k, grids[0]), (v, grids[-1]))
        )
        q, k, v = self._cut(q), self._cut(k), self._cut(v)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * self.scale + self.relative(q) + bias).softmax(-1)
        return self.proj(self._join(weights @ v, n))  # type: ignore[no-any-return]

    def _pad(self, image: Tensor) -> Tensor:
        before, after = self.margins
        return F.pad(image, (before, after, before, after)) if before + after else image

    def _places(self, padded: Tensor, suffix: str) -> Tensor:
        """Where each head looks for each token of the padded grid: (N * heads, edge, edge, 2), x and y from -1 to 1."""
        n, nw = padded.shape[0], self.windows

        def predict(name: str, values: int) -> Tensor:
            return self.get_submodule(f"sampling_{name}")(padded).reshape(n * self.heads, values, nw, 1, nw, 1)

        scaled = self._around * (predict(f"scales{suffix}", 2) + 1)
        # Offsets are in units of the windows that fit into the grid before padding.
        moved = self._centres + predict(f"offsets{suffix}", 2) / (self.grid // WINDOW)
        angle = predict(f"angles{suffix if self.own_angles else self.suffixes[0]}", 1)
        sin, cos = torch.sin(angle), torch.cos(angle)
        x, y = scaled[:, :1], scaled[:, 1:]
        turned = torch.cat((x * cos - y * sin, y * cos + x * sin), 1)
        return (moved + turned).reshape(n * self.heads, 2, nw * WINDOW, nw * WINDOW).permute(0, 2, 3, 1)

    def _cut(self, maps: Tensor) -> Tensor:
        """(N, heads, C, edge, edge) -> (N * windows, heads, 49, C)."""
        n, heads, channels = maps.shape[:3]
        cut = maps.reshape(n, heads, channels, self.windows, WINDOW, self.windows, WINDOW)
        return cut.permute(0, 3, 5, 1, 4, 6, 2).reshape(n * self.windows**2, heads, WINDOW**2, channels)

    def _join(self, windows: Tensor, n: int) -> Tensor:
        """The way back, margins cut off: (N, grid^2, dim)."""
        nw, (before, _) = self.windows, self.margins
        joined = windows.reshape(n, nw, nw, self.heads, WINDOW, WINDOW, -1).permute(0, 1, 4, 2, 5, 3, 6)
        joined = joined.reshape(n, nw * WINDOW, nw * WINDOW, -1)
        return joined[:, before : before + self.grid, before : before + self.grid].flatten(1, 2)


def _predictor(dim: int, values: int) -> nn.Module:
    """Values per window from its mean, at first 0: the window where it stands."""
    conv = nn.Conv2d(dim, values, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.AvgPool2d(WINDOW), nn.LeakyReLU(), conv)


def _reference(windows: int) -> tuple[Tensor, Tensor]:
    """Window centres (1, 2, nw, 1, nw, 1) and token places around their centre (1, 2, 1, 7, 1, 7), x then y, -1 to 1."""
    edge = windows * WINDOW
    centres = torch.linspace(-1, 1, edge).reshape(windows, WINDOW).mean(1)
    around = (torch.arange(WINDOW) - (WINDOW - 1) / 2) * 2 / (edge - 1)
    return _planes(centres, windows)[:, :, :, None, :, None], _planes(around, WINDOW)[:, :, None, :, None, :]


def _planes(steps: Tensor, size: int) -> Tensor:
    """The same steps along x and along y: (1, 2, size, size)."""
    return torch.stack((steps.expand(size, size), steps[:, None].expand(size, size)))[None]


def build(**arch: object) -> nn.Module:
    return RVSA(**arch)  # type: ignore[arg-type]


def fit_pyramid(arch: Arch, shapes: Shapes, prefix: str = "backbone.") -> Arch:
    """The checkpoint's image size, and which biases query, key and value have."""
    windows = f"{prefix}blocks.0.attn."
    found = dict(arch)
    if f"{windows}qkv.weight" in shapes:
        joint = f"{windows}qkv.bias" in shapes
        found["bias"] = joint or f"{windows}q_bias" in shapes
        found["joint"] = joint and bool(arch.get("vitae"))
    if f"{prefix}pos_embed" in shapes:
        found["image"] = PATCH * math.isqrt(shapes[f"{prefix}pos_embed"][1])
    return found


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """A head of the checkpoint's classes, and whether there are biases of query, key and value: classification has none."""
    found = {**arch, "bias": any(name.endswith(("attn.qkv.bias", "attn.q_bias")) for name in shapes)}
    return {**found, "classes": shapes["head.weight"][0]} if "head.weight" in shapes else found


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks."""
    assert isinstance(net, RVSA)
    return tokens(numbered("blocks", len(net.blocks)), net.pos_embed.shape[-1], shape, PATCH)


FAMILY = Family(build, fit, features=features)
