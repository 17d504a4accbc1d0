"""Vision tower and projector of vision-language models as one graph: image -> tokens for the language model.

Sources: Liu et al. 2024, "LLaVA-1.5" (CLIP tower, two-layer projector); Zhai et al. 2023, "SigLIP"; Chen et al. 2024, "InternVL"
(InternViT with layer scale, pixel shuffle); Lin et al. 2024, "VILA" (2x2 downsampling). The language model has a runtime of its
own (:mod:`rsedge.export.targets.language`); its text never enters this graph, so image tokens can be computed once and kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, tokens
from rsedge.models.layers.attention import attend_by_products
from rsedge.models.layers.mlp import quick_gelu
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part

TowerKind = Literal["clip", "siglip", "intern"]
ProjectorKind = Literal["mlp", "merge", "shuffle"]

_ACTIVATIONS: dict[TowerKind, Callable[[Tensor], Tensor]] = {
    "clip": quick_gelu,
    "siglip": lambda x: F.gelu(x, approximate="tanh"),
    "intern": F.gelu,
}


class VisionLanguageFront(nn.Module):
    """x (N, 3, image, image), normalised -> tokens (N, T, width) in the language model's space.

    Args:
        select: the layer whose output is read, counted from the end: -1 the last, -2 the one before it.
        trained: image size at which the positions were trained, where it is another: they are interpolated (bicubic).
        aligned: whether the corners of that grid stay where they are, as in GeoChat's code, or its edges.
        projector: ``mlp``: per token; ``merge``: four neighbouring tokens side by side, then per token; ``shuffle``: the same
            with a LayerNorm between (InternVL's pixel shuffle, VILA's downsampling).
    """

    def __init__(
        self,
        tower: TowerKind,
        image: int,
        width: int,
        patch: int = 14,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp: int = 4096,
        select: int = -2,
        projector: ProjectorKind = "mlp",
        trained: int | None = None,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.vision = Tower(tower, image, trained or image, patch, dim, depth, heads, mlp, aligned)
        self.image, self.used, self.kind, self.grid = image, depth + 1 + select, projector, image // patch
        wide = dim if projector == "mlp" else 4 * dim
        layers: list[nn.Module] = [nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width)]
        if projector == "shuffle":
            layers.insert(0, nn.LayerNorm(wide))
        self.projector = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.vision(x, self.used)
        if self.kind != "mlp":
            tokens = _neighbours(tokens.unflatten(1, (self.grid, self.grid)))
        return self.projector(tokens)  # type: ignore[no-any-return]


def _neighbours(grid: Tensor) -> Tensor:
    """Squares of 2 x 2 tokens, row by row, as one token: (N, g, g, C) -> (N, ceil(g/2)^2, 4 C); an odd edge gets zeros."""
    odd = grid.shape[1] % 2
    grid = F.pad(grid, (0, 0, 0, odd, 0, odd))
    n, edge, _, channels = grid.shape
    squares = grid.reshape(n, edge // 2, 2, edge // 2, 2, channels)
    return squares.transpose(2, 3).reshape(n, -1, 4 * channels)


class Tower(nn.Module):
    """A ViT of the CLIP, SigLIP or InternViT kind -> patch tokens (N, grid^2, dim) after ``used`` layers.

    Parameters of layers that are not read are there, so that checkpoints load strictly; exported graphs do not hold them.
    """

    def __init__(
        self,
        kind: TowerKind,
        image: int,
        trained: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.token, self.aligned = kind, kind != "siglip", aligned
        self.grid, self.trained = image // patch, trained // patch
        count = self.trained**2 + self.token
        self.patch_embedding = nn.Conv2d(3, dim, patch, patch, bias=kind != "clip")
        self.position_embedding = nn.Parameter(torch.randn(count, dim) * 0.02)
        if self.token:
            self.class_embedding = nn.Parameter(torch.randn(dim) * 0.02)
        eps = 1e-5 if kind == "clip" else 1e-6
        if kind == "clip":
            self.pre_norm = nn.LayerNorm(dim, eps)
        self.layers = nn.ModuleList(Layer(kind, dim, heads, mlp, eps) for _ in range(depth))
        if kind != "intern":
            self.post_norm = nn.LayerNorm(dim, eps)

    def forward(self, x: Tensor, used: int) -> Tensor:
        return self.after(x, used)[0]

    def after(self, x: Tensor, *counts: int) -> list[Tensor]:
        """Patch tokens after so many layers, in the order asked for."""
        tokens = as_tokens(self.patch_embedding(x))
        if self.token:
            tokens = torch.cat((self.class_embedding.expand(x.shape[0], 1, -1), tokens), 1)
        tokens = tokens + self._positions()
        if self.kind == "clip":
            tokens = self.pre_norm(tokens)
        found = {}
        for i, layer in enumerate(self.layers[: max(counts)], 1):
            tokens = layer(tokens)
            if i in counts:
                found[i] = tokens[:, 1:] if self.token else tokens
        return [found[count] for count in counts]

    def _positions(self) -> Tensor:
        if self.grid == self.trained:
            return self.position_embedding
        token, patches = self.position_embedding.split((int(self.token), self.trained**2))
        square = patches.T.reshape(1, -1, self.trained, self.trained)
        grown = F.interpolate(square, size=(self.grid, self.grid), mode="bicubic", align_corners=self.aligned)
        return torch.cat((token, grown.flatten(2)[0].T))


class Layer(nn.Module):
    """Pre-norm attention and MLP; InternViT scales both branches per channel."""

    def __init__(self, kind: TowerKind, dim: int, heads: int, mlp: int, eps: float) -> None:
        super().__init__()
        self.heads, self.scale, self.activation = heads, (dim // heads) ** -0.5, _ACTIVATIONS[kind]
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, mlp), nn.Linear(mlp, dim)
        if kind == "intern":
            self.ls1, self.ls2 = nn.Parameter(torch.full((dim,), 0.1)), nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = self.proj(attend_by_products(q, k, v, self.scale))
        x = x + (attended * self.ls1 if hasattr(self, "ls1") else attended)
        y = self.fc2(self.activation(self.fc1(self.norm2(x))))
        return x + (y * self.ls2 if hasattr(self, "ls2") else y)  # type: ignore[no-any-return]


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Separate query, key and value projections (CLIP, SigLIP) side by side, and a batch axis off the positions."""
    found = dict(state)
    for name in [n for n in state if n.startswith("vision.") and ".self_attn.q_proj." in n]:
        parts = [found.pop(name.replace("q_proj", f"{p}_proj"), None) for p in "qkv"]
        whole = [p for p in parts if p is not None]
        # A missing projection leaves a wrong shape, which strict loading reports by name.
        found[name.replace("self_attn.q_proj", "qkv")] = torch.cat(whole)
    for name in ("vision.position_embedding", "vision.class_embedding"):
        if name in found and found[name].ndim > 1:
            keep = (-1, found[name].shape[-1]) if name.endswith("position_embedding") else (-1,)
            found[name] = found[name].reshape(keep)
    return found


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The image size at which the checkpoint's positions were trained."""
    positions = shapes.get("vision.position_embedding")
    if not positions:
        return arch
    return {**arch, "trained": math.isqrt(positions[0]) * arch.get("patch", 14)}


def parts(net: nn.Module) -> dict[str, Part]:
    """Tower and projector, run once an image (or tile, or frame)."""
    assert isinstance(net, VisionLanguageFront)
    return {"front": Part(net, {"image": torch.randn(1, 3, net.image, net.image)}, ("tokens",))}


def trim(net: VisionLanguageFront, arch: Arch) -> Arch:
    """Takes out the layers behind the one that is read, in place; gives the arguments that build what is left."""
    del net.vision.layers[net.used :]
    return {**arch, "depth": net.used, "select": -1}


def build(**arch: object) -> nn.Module:
    return VisionLanguageFront(**arch)  # type: ignore[arg-type]


def features(net: nn.Module, shape: Shape) -> Features:
    """The tower's layers that are read, its patches, and the tokens in the language model's space."""
    assert isinstance(net, VisionLanguageFront)
    tower, grid = net.vision, net.grid
    dim, patch = tower.patch_embedding.out_channels, tower.patch_embedding.stride[0]
    width, side = net.projector[-1].out_features, grid if net.kind == "mlp" else -(-grid // 2)
    return (
        *tokens([f"vision.layers.{i}" for i in range(net.used)], dim, shape, patch, int(tower.token)),
        *tokens(["vision"], dim, shape, patch),
        Feature("projector", width, "NLC", patch if net.kind == "mlp" else 2 * patch, (side, side)),  # type: ignore[arg-type]
    )


FAMILY = Family(build, fit, convert, parts, features)
