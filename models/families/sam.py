"""Segment Anything's image encoder and mask decoder, as RSPrompter uses them; names are those of ``transformers``.

Sources: Kirillov et al. 2023, "Segment Anything"; Chen et al. 2024, "RSPrompter" (TGRS): learned prompts take the place of the
points and boxes of a user. The image size is fixed when the network is built, so that windows, relative positions and the
position code of the image are constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, maps, numbered
from rsedge.models.layers.mask_decoder import MaskDecoder, fourier_positions, norm_channels
from rsedge.models.layers.mlp import mlp
from rsedge.models.parts import Part

PATCH = 16
WINDOW = 14


class SAM(nn.Module):
    """x (N, 3, image, image) and prompts (N, P, T, hidden) -> mask logits (N, P, 1, image/4, image/4), quality (N, P, 1).

    Args:
        whole: blocks that attend to the whole image; the others to windows of 14 tokens.
        prompts, tokens: P instances of T prompt tokens each, in the exported decoder.
    """

    def __init__(
        self,
        image: int = 1024,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        whole: Sequence[int] = (2, 5, 8, 11),
        hidden: int = 256,
        prompts: int = 100,
        tokens: int = 5,
    ) -> None:
        super().__init__()
        self.image, self.hidden, self.shape = image, hidden, (1, prompts, tokens, hidden)
        self.vision_encoder = VisionEncoder(image // PATCH, dim, depth, heads, tuple(whole), hidden)
        # Random Fourier features of places; drawn once, never trained.
        self.shared_image_embedding = nn.ParameterDict({"positional_embedding": torch.randn(2, hidden // 2)})
        self.no_mask_embed = nn.Embedding(1, hidden)
        self.mask_decoder = MaskDecoder(hidden, eps=1e-6)

    def forward(self, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(self.vision_encoder(x), prompts)

    def decode(self, embedding: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Image embedding (N, hidden, g, g) and prompts -> mask logits and quality."""
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        found: tuple[Tensor, Tensor] = self.mask_decoder(embedding + dense, self.positions(), prompts)
        return found

    def positions(self) -> Tensor:
        """Position code of the image (1, hidden, g, g)."""
        return fourier_positions(self.shared_image_embedding["positional_embedding"], self.image // PATCH)


class VisionEncoder(nn.Module):
    """x (N, 3, image, image) -> embedding (N, hidden, grid, grid)."""

    def __init__(self, grid: int, dim: int, depth: int, heads: int, whole: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, dim))
        self.patch_embed = nn.ModuleDict({"projection": nn.Conv2d(3, dim, PATCH, PATCH)})
        self.layers = nn.Sequential(
            *(EncoderLayer(dim, heads, grid, 0 if i in whole else WINDOW) for i in range(depth))
        )
        self.neck = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(dim, hidden, 1, bias=False),
                "layer_norm1": nn.LayerNorm(hidden, eps=1e-6),
                "conv2": nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
                "layer_norm2": nn.LayerNorm(hidden, eps=1e-6),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.layers(self.patches(x)))

    def patches(self, x: Tensor) -> Tensor:
        """Patches with their places, (N, grid, grid, dim)."""
        return self.patch_embed["projection"](x).permute(0, 2, 3, 1) + self.pos_embed  # type: ignore[no-any-return]

    def states(self, x: Tensor) -> list[Tensor]:
        """What each layer gives, (N, grid, grid, dim)."""
        x = self.patches(x)
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found

    def embedding(self, x: Tensor) -> Tensor:
        """The last layer's -> the image embedding."""
        x = norm_channels(self.neck["conv1"](x.permute(0, 3, 1, 2)), self.neck["layer_norm1"])
        return norm_channels(self.neck["conv2"](x), self.neck["layer_norm2"])


class EncoderLayer(nn.Module):
    """Attention in windows (or over all, ``window`` 0) and MLP over (N, grid, grid, dim)."""

    def __init__(self, dim: int, heads: int, grid: int, window: int) -> None:
        super().__init__()
        self.grid, self.window, self.windows = grid, window, -(-grid // window) if window else 1
        self.layer_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DecomposedAttention(dim, heads, window or grid)
        self.layer_norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim, 4 * dim, names=("lin1", "lin2"))

    def forward(self, x: Tensor) -> Tensor:
        attended = self.layer_norm1(x)
        attended = self._join(self.attn(self._cut(attended))) if self.window else self.attn(attended)
        x = x + attended
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]

    def _cut(self, x: Tensor) -> Tensor:
        """(N, grid, grid, C), filled up with zeros -> (N * windows^2, window, window, C)."""
        rest = self.windows * self.window - self.grid
        x = F.pad(x, (0, 0, 0, rest, 0, rest))
        n, count, size, channels = x.shape[0], self.windows, self.window, x.shape[3]
        return x.reshape(n, count, size, count, size, channels).transpose(2, 3).reshape(-1, size, size, channels)

    def _join(self, x: Tensor) -> Tensor:
        count, size, channels = self.windows, self.window, x.shape[3]
        x = x.reshape(-1, count, count, size, size, channels).transpose(2, 3)
        return x.reshape(-1, count * size, count * size, channels)[:, : self.grid, : self.grid]


class DecomposedAttention(nn.Module):
    """Attention over squares (N, size, size, dim), with relative positions along rows and along columns."""

    _distance: Tensor

    def __init__(self, dim: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        steps = torch.arange(size)
        self.register_buffer("_distance", steps[:, None] - steps + size - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, size = x.shape[:2]
        qkv = self.qkv(x).reshape(n, size * size, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        square = q.unflatten(2, (size, size))
        rows = square @ self.rel_pos_h[self._distance].transpose(-2, -1)
        columns = (square.transpose(2, 3) @ self.rel_pos_w[self._distance].transpose(-2, -1)).transpose(2, 3)
        relative = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        weights = (q * self.scale @ k.transpose(-2, -1) + relative).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, size, size, -1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """``SAM.decode`` as a network of its own, without the encoder."""

    def __init__(self, sam: SAM) -> None:
        super().__init__()
        self.mask_decoder = sam.mask_decoder
        self.dense: Tensor
        self.positions: Tensor
        self.register_buffer("dense", sam.no_mask_embed.weight.detach().reshape(1, -1, 1, 1))
        self.register_buffer("positions", sam.positions().detach())

    def forward(self, embedding: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.mask_decoder(embedding + self.dense, self.positions, prompts)
        return found


def parts(net: nn.Module) -> dict[str, Part]:
    """The encoder, run once an image, and the decoder, run on its embedding with the prompts of all instances."""
    assert isinstance(net, SAM)
    grid = net.image // PATCH
    embedding = torch.randn(1, net.hidden, grid, grid)
    return {
        "encoder": Part(net.vision_encoder, {"image": torch.randn(1, 3, net.image, net.image)}, ("embedding",)),
        "decoder": Part(
            Decoder(net), {"embedding": embedding, "prompts": torch.randn(net.shape)}, ("masks", "quality")
        ),
    }


def build(**arch: object) -> nn.Module:
    return SAM(**arch)  # type: ignore[arg-type]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """The image size of the checkpoint, read from its positions."""
    found = shapes.get("vision_encoder.pos_embed")
    return {**arch, "image": found[1] * PATCH} if found else arch


def features(net: nn.Module, shape: Shape) -> Features:
    """The encoder's layers, whose maps have their channels last, and the image embedding."""
    assert isinstance(net, SAM)
    encoder = net.vision_encoder
    layers = numbered("vision_encoder.layers", len(encoder.layers))
    return (
        *(Feature(name, encoder.pos_embed.shape[-1], "NHWC", PATCH) for name in layers),
        *maps(("vision_encoder", PATCH, net.hidden)),
    )


FAMILY = Family(build, fit, parts=parts, features=features)
