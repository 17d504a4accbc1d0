"""HyperSIGMA's change detection: what its towers say of two dates of a patch, subtracted, says whether its middle has changed.

Source: Wang et al. 2025 (TPAMI), the authors' ChangeDetection folder; ``SpatSIGMA_CD`` has the spatial tower alone. They judge each
pixel by the patch around it and mirror scenes at their edges; so does the network here, for all pixels of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.families.hypersigma import WIDTH, SigmaBlock, hyperspectral
from rsedge.models.features import Features, Shape, maps
from rsedge.models.layers.patches import PatchEmbed
from rsedge.models.layers.pooling import pooling

MAPS = 64
"""Channels of what is made of each level's difference."""
PATCHES = 256
"""That are judged at once."""


def _mirrored(tile: int, image: int) -> Tensor:
    """For each pixel along a tile's edge the pixels of its patch, beyond the edge mirrored with it: (tile * image,)."""
    wanted = torch.arange(tile)[:, None] + torch.arange(image) - image // 2
    inside = torch.where(wanted < 0, -wanted - 1, wanted)
    return torch.where(inside >= tile, 2 * tile - 1 - inside, inside).flatten()


class SigmaChange(nn.Module):
    """x (N, 2, bands, tile, tile), two dates -> logits (N, classes, tile, tile).

    The norms behind the towers are in the authors' files and never used.

    Args:
        image: pixels of a patch's edge, an odd number.
        patch: pixels of a token's edge.
        spectral: whether the spectral tower weighs the spatial features.
        tokens: of the spectral tower, a square number.
        taps: blocks whose tokens are compared, the finest first.
    """

    _places: Tensor

    def __init__(
        self,
        bands: int,
        image: int,
        patch: int,
        tile: int,
        spectral: bool = True,
        classes: int = 2,
        tokens: int = 144,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        interval: int = 3,
        points: int = 8,
        taps: Sequence[int] = (3, 5, 7, 11),
    ) -> None:
        super().__init__()
        self.spectral, self.tile, self.image = spectral, tile, image
        width = tokens if spectral else MAPS
        tower = (dim, depth, heads, interval, points)
        self.spat_encoder = SpatialTower(bands, image // patch, patch, taps, *tower)
        if spectral:
            self.spec_encoder = SpectralTower(bands, image, tokens, taps, *tower)
        for i in range(1, 5):
            self.add_module(f"conv_features{i}", nn.Conv2d(dim, width, 1, bias=False))
            # The first takes the deepest level.
            self.add_module(f"conv{i}", DoubleConv(width, MAPS, 1 if i < 3 else 3))
            if spectral:
                self.add_module(f"fc_spec{i}", _gate(tokens))
        self.BCD_classifier = _classifier(image // patch, patch, classes)
        self.fused = nn.Identity()
        self.register_buffer("_places", _mirrored(tile, image), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x)
        # Exporters would write every part's nodes anew.
        at_once = patches.shape[0] if torch.compiler.is_exporting() else PATCHES
        found = torch.cat([self.compared(part) for part in patches.split(at_once)])
        fused = self.fused(found.reshape(x.shape[0], self.tile, self.tile, -1).permute(0, 3, 1, 2))
        return self.BCD_classifier[-1](fused)  # type: ignore[no-any-return]

    def compared(self, x: Tensor) -> Tensor:
        """Patches of two dates (P, 2, bands, image, image) -> what is known of their middles, (P, C)."""
        before, after = (self._levels(date) for date in x.unbind(1))
        changed = [(a - b).abs() for a, b in zip(before, after, strict=True)]
        found = [self.get_submodule(f"conv{i}")(level) for i, level in enumerate(reversed(changed), 1)]
        return self.BCD_classifier[:-1](torch.cat(found, 1)).flatten(1)  # type: ignore[no-any-return]

    def patches(self, x: Tensor) -> Tensor:
        """What each pixel is judged by: (N * tile * tile, 2, bands, image, image), row by row."""
        n, dates, bands = x.shape[:3]
        cut = x.index_select(3, self._places).index_select(4, self._places)
        cut = cut.reshape(n, dates, bands, self.tile, self.image, self.tile, self.image)
        return cut.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, dates, bands, self.image, self.image)

    def _levels(self, x: Tensor) -> list[Tensor]:
        """Features (N, width, grid, grid) of one date, of each tap."""
        found = [self.get_submodule(f"conv_features{i}")(level) for i, level in enumerate(self.spat_encoder(x), 1)]
        if not self.spectral:
            return found
        weights = self.spec_encoder(x)
        gates = [1 + self.get_submodule(f"fc_spec{i}")(weights)[:, :, None, None] for i in range(1, 5)]
        return [gate * level for gate, level in zip(gates, found, strict=True)]


class SpatialTower(nn.Module):
    """x (N, bands, H, W) -> maps (N, dim, grid, grid) of the blocks ``taps``. There are no positions."""

    def __init__(
        self,
        bands: int,
        grid: int,
        patch: int,
        taps: Sequence[int],
        dim: int,
        depth: int,
        heads: int,
        interval: int,
        points: int,
    ) -> None:
        super().__init__()
        self.grid, self.taps = grid, tuple(taps)
        self.patch_embed = PatchEmbed(bands, dim, patch)
        self.blocks = _blocks(dim, depth, heads, interval, points, grid)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = _tapped(self.blocks, self.patch_embed(x), self.taps)
        return [tokens.transpose(-2, -1).unflatten(2, (self.grid, self.grid)) for tokens in found]


class SpectralTower(nn.Module):
    """x (N, bands, image, image) -> one number for each stretch of bands, (N, tokens)."""

    _pooling: Tensor

    def __init__(
        self,
        bands: int,
        image: int,
        tokens: int,
        taps: Sequence[int],
        dim: int,
        depth: int,
        heads: int,
        interval: int,
        points: int,
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.spat_map = nn.Linear(image * image, dim)
        self.blocks = _blocks(dim, depth, heads, interval, points, math.isqrt(tokens))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for i in range(1, 5):
            self.add_module(f"l{i}", nn.Linear(dim, WIDTH, bias=False))
        self.register_buffer("_pooling", pooling(bands, tokens), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found = _tapped(self.blocks, self.spat_map(self._pooling @ x.flatten(2)), self.taps)
        return torch.stack([self.get_submodule(f"l{i}")(tokens) for i, tokens in enumerate(found, 1)]).sum(0).mean(2)


class DoubleConv(nn.Module):
    """A convolution of half the channels and one of all of them, each with batch normalisation and ReLU."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        half = channels // 2
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, half, kernel, padding=kernel // 2),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)  # type: ignore[no-any-return]


def _blocks(dim: int, depth: int, heads: int, interval: int, points: int, grid: int) -> nn.ModuleList:
    return nn.ModuleList(SigmaBlock(dim, heads, points if (i + 1) % interval else 0, grid) for i in range(depth))


def _tapped(blocks: nn.ModuleList, tokens: Tensor, taps: tuple[int, ...]) -> list[Tensor]:
    found = []
    for i, block in enumerate(blocks):
        tokens = block(tokens)
        if i in taps:
            found.append(tokens)
    return found


def _gate(tokens: int) -> nn.Module:
    narrow = 32
    return nn.Sequential(
        nn.Linear(tokens, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, tokens, bias=False), nn.Sigmoid()
    )


def _classifier(grid: int, patch: int, classes: int) -> nn.Sequential:
    """3x3 convolutions without margins, until one place is left of the grid."""
    width = 4 * MAPS
    count = (grid - 1) // 2
    widths = [width, width // 2] if patch == 1 else [width // 2, width // 4]
    widths += widths[-1:] * (count - len(widths))
    layers: list[nn.Module] = []
    for before, after in zip([width, *widths], widths, strict=False):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], classes, 1))


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Bands, patch, image size and tokens of the checkpoint: its users choose them."""
    found = dict(arch)
    if "spat_encoder.patch_embed.proj.weight" in shapes:
        _, found["bands"], found["patch"], _ = shapes["spat_encoder.patch_embed.proj.weight"]
    layers = [name for name in shapes if name.startswith("BCD_classifier.") and name.endswith(".weight")]
    if layers:
        found["classes"] = shapes[max(layers)][0]
        grid = 2 * len(layers) - 1
        if found["image"] // found["patch"] != grid:
            found["image"] = grid * found["patch"]
    if "spec_encoder.spat_map.weight" in shapes:
        found["image"] = math.isqrt(shapes["spec_encoder.spat_map.weight"][1])
        found["tokens"] = shapes["fc_spec1.0.weight"][1] if "fc_spec1.0.weight" in shapes else found.get("tokens", 144)
    return found


def contract(spec: InputSpec, arch: Arch) -> InputSpec:
    """The row's contract for the network's number of bands."""
    return hyperspectral(spec, arch["bands"], arch["tile"])


def features(net: nn.Module, shape: Shape) -> Features:
    """What is known of each pixel before the classes; the towers run once a date and a patch."""
    assert isinstance(net, SigmaChange)
    return maps(("fused", 1, net.BCD_classifier[-1].in_channels))  # type: ignore[index, union-attr, arg-type]


FAMILY = Family(SigmaChange, fit, contract=contract, features=features)
