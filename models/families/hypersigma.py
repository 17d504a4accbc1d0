"""HyperSIGMA: a spatial and a spectral ViT with sparse sampling attention, fused for pixels (patches) or whole cubes.

Source: Wang et al. 2025, "HyperSIGMA: Hyperspectral Intelligence Comprehension Foundation Model" (TPAMI). In most blocks a
token attends to a few places that it chooses itself, relative to where it stands; every ``interval``-th block attends to all.
The image size is fixed when the network is built: reference points and the pooling of bands to 100 tokens are constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, maps, tokens
from rsedge.models.layers.attention import attend_by_products
from rsedge.models.layers.mlp import mlp
from rsedge.models.layers.patches import PatchEmbed
from rsedge.models.layers.pooling import pooling

TOKENS = 100
"""Spectral tokens; they stand on a grid of 10 x 10 for the sampling."""
WIDTH = 128


class HyperSIGMA(nn.Module):
    """x (N, bands, image, image), whitened components -> logits (N, classes), or (N, classes, image, image).

    Parameters that the authors' networks carry without ever using them (old heads, the spectral blocks after the one that is
    read) are there, so that checkpoints load strictly; exported graphs do not hold them.
    """

    def __init__(
        self,
        task: Literal["classification", "segmentation"],
        bands: int,
        image: int,
        patch: int,
        classes: int,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        interval: int = 3,
        points: int = 8,
        taps: Sequence[int] = (3, 5, 7, 11),
    ) -> None:
        super().__init__()
        self.dense, self.image = task == "segmentation", image
        tower = (dim, depth, heads, interval, points)
        self.spat_encoder = SpatialEncoder(bands, image, patch, classes, self.dense, taps, *tower)
        self.spec_encoder = SpectralEncoder(bands, image, 1 if self.dense else len(taps), taps[0], *tower)
        self.conv_features = nn.Conv2d(dim, WIDTH if self.dense else 64, 1, bias=False)
        for i in range(1, 5):
            self.add_module(f"DR{i}", nn.Conv2d(dim, WIDTH, 1, bias=False))
            self.add_module(f"fc_spec{i}", _gate(dim if self.dense else WIDTH))
        self.conv = nn.Conv2d(4 * WIDTH, WIDTH, 1)
        if self.dense:
            self.cls = nn.Conv2d(WIDTH, classes, 1)
        else:
            layers = nn.Linear(4 * WIDTH, 256), nn.Dropout(0.4), nn.Linear(256, 128), nn.Dropout(0.4)
            self.classifier = nn.Sequential(*layers, nn.Linear(128, classes))

    def forward(self, x: Tensor) -> Tensor:
        spectral = self.spec_encoder(x).mean(2)
        levels = list(enumerate(self.spat_encoder(x), 1))
        gates = [1 + self.get_submodule(f"fc_spec{i}")(spectral)[:, :, None, None] for i, _ in levels]
        if not self.dense:
            fused = [
                (g * self.get_submodule(f"DR{i}")(f)).mean((2, 3)) for g, (i, f) in zip(gates, levels, strict=True)
            ]
            return self.classifier(torch.cat(fused, 1))  # type: ignore[no-any-return]
        size = (self.image, self.image)
        grown = [F.interpolate(f, size=size, mode="bilinear", align_corners=True) for _, f in levels]
        fused = [self.get_submodule(f"DR{i}")(g * f) for i, (g, f) in enumerate(zip(gates, grown, strict=True), 1)]
        return self.cls(self.conv(torch.cat(fused, 1)))  # type: ignore[no-any-return]


def _gate(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(TOKENS, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, width, bias=False), nn.Sigmoid()
    )


def _blocks(dim: int, tower: Sequence[int], grid: int) -> nn.ModuleList:
    depth, heads, interval, points = tower
    return nn.ModuleList(SigmaBlock(dim, heads, points if (i + 1) % interval else 0, grid) for i in range(depth))


class SpatialEncoder(nn.Module):
    """Four levels of features (N, dim, h, w) from patches, the deepest first."""

    def __init__(
        self, bands: int, image: int, patch: int, classes: int, dense: bool, taps: Sequence[int], dim: int, *tower: int
    ) -> None:
        super().__init__()
        grid = image // patch
        self.grid, self.taps = grid, tuple(taps)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid, dim))
        # Never called: what is left of earlier experiments, with widths as they were then.
        self.classifier = _chain(49152, classes)
        if not dense:
            self.cls = nn.Conv2d(4 * dim, classes, 1)
            self.classifier1 = _chain(4 * 768, classes)
        self.patch_embed = PatchEmbed(bands, dim, patch)
        self.blocks = _blocks(dim, tower, grid)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        small = patch < 4
        self.fpn1 = nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, 2)) if small else nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = self.patch_embed(x) + self.pos_embed
        found = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i in self.taps:
                found.append(tokens.transpose(-2, -1).unflatten(2, (self.grid, self.grid)))
        first, second, third, fourth = found
        return [F.max_pool2d(fourth, 4, 4), F.max_pool2d(third, 2, 2), second, self.fpn1(first)]


def _chain(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 128), nn.Linear(128, 64), nn.Linear(64, classes))


class SpectralEncoder(nn.Module):
    """Bands pooled to 100 tokens, each a whole image plane -> features (N, 100, 128) of the block ``tap``."""

    def __init__(self, bands: int, image: int, unused: int, tap: int, dim: int, *tower: int) -> None:
        super().__init__()
        self.tap = tap
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS, dim))
        self.spat_map = nn.Linear(image * image, dim)
        self.blocks = _blocks(dim, tower, math.isqrt(TOKENS))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.conv_q = nn.ModuleList(nn.Conv2d(TOKENS, TOKENS, 1) for _ in range(unused))
        self.conv_k = nn.ModuleList(nn.Conv1d(TOKENS, TOKENS, 1) for _ in range(unused))
        self.conv_v = nn.ModuleList(nn.Conv1d(TOKENS, TOKENS, 1) for _ in range(unused))
        self.l1 = nn.Linear(dim, WIDTH, bias=False)
        self.register_buffer("_pooling", pooling(bands, TOKENS), persistent=False)
        self._pooling: Tensor

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.spat_map(self._pooling @ x.flatten(2)) + self.pos_embed
        for block in self.blocks[: self.tap + 1]:
            tokens = block(tokens)
        return self.l1(tokens)  # type: ignore[no-any-return]


class SigmaBlock(nn.Module):
    """Pre-norm attention (sampling where ``points`` is not 0) and MLP over tokens (N, grid * grid, dim)."""

    def __init__(self, dim: int, heads: int, points: int, grid: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SamplingAttention(dim, heads, points, grid) if points else FullAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class FullAttention(nn.Module):
    """Attention to all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend_by_products(q, k, v, self.scale))  # type: ignore[no-any-return]


class SamplingAttention(nn.Module):
    """Each token and head attends to ``points`` places of the grid, given as offsets (in tokens) from the token."""

    _places: Tensor

    def __init__(self, dim: int, heads: int, points: int, grid: int) -> None:
        super().__init__()
        self.heads, self.points, self.grid, self.scale = heads, points, grid, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.sampling_offsets = nn.Linear(dim, heads * points * 2)
        centres = (torch.arange(grid) + 0.5) / grid * 2 - 1
        x, y = centres.expand(grid, grid), centres[:, None].expand(grid, grid)
        self.register_buffer("_places", torch.stack((x, y), -1).reshape(1, 1, grid * grid, 1, 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length = x.shape[:2]
        q, k, v = self.qkv(x).chunk(3, -1)
        offsets = self.sampling_offsets(q).reshape(n, length, self.heads, self.points, 2).transpose(1, 2)
        places = (self._places + offsets * (2 / self.grid)).flatten(0, 1)
        keys, values = (
            F.grid_sample(self._maps(t), places, "bilinear", "zeros", align_corners=False) for t in (k, v)
        )  # each (N * heads, C, L, points)
        q = q.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)[..., None]
        weights = ((q * keys).sum(1, keepdim=True) * self.scale).softmax(-1)
        out = (weights * values).sum(-1).reshape(n, -1, length)
        return self.proj(out.transpose(-2, -1))  # type: ignore[no-any-return]

    def _maps(self, tokens: Tensor) -> Tensor:
        """(N, L, dim) -> (N * heads, C, grid, grid)."""
        return tokens.transpose(-2, -1).reshape(tokens.shape[0] * self.heads, -1, self.grid, self.grid)


def build(**arch: object) -> nn.Module:
    return HyperSIGMA(**arch)  # type: ignore[arg-type]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Bands, patch, image size and classes of the checkpoint: its users choose them."""
    found = dict(arch)
    if "spat_encoder.patch_embed.proj.weight" in shapes:
        _, found["bands"], found["patch"], _ = shapes["spat_encoder.patch_embed.proj.weight"]
    if "spec_encoder.spat_map.weight" in shapes:
        found["image"] = math.isqrt(shapes["spec_encoder.spat_map.weight"][1])
    for head in ("classifier.4.weight", "cls.weight"):
        if head in shapes:
            found["classes"] = shapes[head][0]
    return found


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's image size and number of components."""
    return hyperspectral(spec, arch["bands"], arch["image"])


def hyperspectral(spec: InputSpec, count: int, tile: int) -> InputSpec:
    """A contract for ``count`` bands alike, numbered as the first is, and tiles of another size."""
    first = spec.bands[0]
    stem = first.name.rstrip("0123456789")
    bands = tuple(first.model_copy(update={"name": f"{stem}{i + 1}"}) for i in range(count))
    return spec.model_copy(update={"bands": bands, "tile": tile})


def features(net: nn.Module, shape: Shape) -> Features:
    """The spatial blocks, the four levels made of them and what the head makes of each; the spectral blocks that are read."""
    assert isinstance(net, HyperSIGMA)
    spatial, spectral = net.spat_encoder, net.spec_encoder
    dim, patch = spatial.pos_embed.shape[-1], shape[-1] // spatial.grid
    strides = [4 * patch, 2 * patch, patch, patch // 2 if patch < 4 else patch]
    blocks = [f"spat_encoder.blocks.{i}" for i in range(len(spatial.blocks))]
    levels = [(f"spat_encoder[{i}]", stride, dim) for i, stride in enumerate(strides)]
    reduced = [(f"DR{i}", 1 if net.dense else stride, WIDTH) for i, stride in enumerate(strides, 1)]
    fused = [("conv", 1, WIDTH)] if net.dense else []
    return (
        *tokens(blocks, dim, shape, patch),
        *maps(*levels, *reduced, *fused),
        *(Feature(f"spec_encoder.blocks.{i}", dim, "NLC") for i in range(spectral.tap + 1)),
    )


FAMILY = Family(build, fit, contract=contract, features=features)
