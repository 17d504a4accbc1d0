"""CLIP image towers: StreetCLIP, RemoteCLIP, SkyCLIP and the image side of GeoCLIP.

Source: Radford et al. 2021, "Learning transferable visual models from natural language supervision". The names are those of
transformers; checkpoints of open_clip are renamed by their rows, their fused matrices split here. Embeddings of texts are
computed once on the ground, so that the image tower is what flies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, tokens, vectors
from rsedge.models.layers.attention import attend, split
from rsedge.models.layers.mlp import QuickGelu, mlp
from rsedge.models.layers.patches import as_tokens

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGelu}


class Embeddings(nn.Module):
    """x (N, 3, tile, tile) -> class token and patches with positions (N, 1 + patches, dim)."""

    def __init__(self, tile: int, patch: int, dim: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(dim) * 0.02)
        self.patch_embedding = nn.Conv2d(3, dim, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((tile // patch) ** 2 + 1, dim)

    def forward(self, x: Tensor) -> Tensor:
        patches = as_tokens(self.patch_embedding(x))
        first = self.class_embedding.expand(len(x), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Attention(nn.Module):
    """Multi-head self-attention (N, L, dim) -> same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(layer(x), self.heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm attention and a 4x MLP."""

    def __init__(self, dim: int, heads: int, activation: str) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.mlp = mlp(dim, 4 * dim, ACTIVATIONS[activation]())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class ClipVision(nn.Module):
    """x (N, 3, tile, tile) -> embedding (N, out), not normalised to unit length.

    Args:
        out: width that image and text share.
        activation: ``quick_gelu`` for weights trained from OpenAI's, else ``gelu``.
        mlp: widths of further layers on top (GeoCLIP), each but the last followed by ReLU.
    """

    def __init__(
        self,
        tile: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        out: int,
        activation: str,
        mlp: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(tile, patch, dim)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Block(dim, heads, activation) for _ in range(depth))})
        self.visual_projection = nn.Linear(dim, out, bias=False)
        layers: list[nn.Module] = []
        for inputs, outputs in zip((out, *mlp), mlp, strict=False):
            layers += [nn.ReLU()] * bool(layers) + [nn.Linear(inputs, outputs)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pre_layrnorm(self.embeddings(x))
        layers = self.encoder["layers"]
        for block in layers:  # type: ignore[attr-defined]
            tokens = block(tokens)
        return self.mlp(self.visual_projection(self.post_layernorm(tokens[:, 0])))  # type: ignore[no-any-return]


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's fused query, key and value, and its projection, which it keeps as (in, out)."""
    split: dict[str, Tensor] = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".in_proj_")
        if owner:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                split[f"{owner}.{part}_proj.{kind}"] = third
        elif name == "visual_projection.proj":
            split["visual_projection.weight"] = value.T
        else:
            split[name] = value
    return split


def features(net: nn.Module, shape: Shape) -> Features:
    """All blocks, and the class token behind the last of them, normalised and projected."""
    assert isinstance(net, ClipVision)
    patches = net.embeddings.patch_embedding
    blocks = [f"encoder.layers.{i}" for i in range(len(net.encoder["layers"]))]  # type: ignore[arg-type]
    return (
        *tokens(blocks, patches.out_channels, shape, patches.stride[0], 1),
        *vectors(("post_layernorm", patches.out_channels), ("visual_projection", net.visual_projection.out_features)),
    )


FAMILY = Family(ClipVision, convert=convert, features=features)
