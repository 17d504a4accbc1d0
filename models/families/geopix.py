"""GeoPix's mask branch: two layers of its CLIP tower, each with a decoder of SAM's kind, prompted by a language model.

Source: Ou et al. 2025, "GeoPix"; the decoder over two scales is PixelLM's (Ren et al. 2024). Hidden states of six ``[SEG]`` tokens,
three to a scale, become one prompt a scale; the coarse mask weighs the map that the fine one is made of. The language model is the
host's.

The memory of classes that the paper describes takes no part: the authors' code computes both of its attentions and its MLP and adds
none of them, what is left of it is a scale per channel and a norm. So it is here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import Family, vlm
from rsedge.models.features import Features, Shape, maps, tokens
from rsedge.models.layers.mask_decoder import FeedForward, TwoWay, fourier_positions, look, masks_of, norm_channels
from rsedge.models.parts import Part

PATCH = 14
SCALES, TOKENS = 2, 3
LAYERS = (-2, -11)
"""Hidden layers that are read, counted from the end (-1 is the last): the coarse mask's, then the fine one's."""
EDGE = 4
"""How many times finer the masks are than the embedding."""


class GeoPix(nn.Module):
    """x (N, 3, image, image), hidden states (N, P, 6, width) -> mask logits (N, P, 1, 4 grid, 4 grid).

    Args:
        image: a multiple of 14; ``trained``: of the tower's positions, where it is another.
        dim, depth, heads, mlp: of the tower (CLIP).
        grid: edge of the embeddings.
        width: of the language model.
        prompts: instances in the exported decoder.
    """

    def __init__(
        self,
        image: int = 448,
        trained: int | None = None,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp: int = 4096,
        grid: int = 32,
        hidden: int = 256,
        width: int = 4096,
        prompts: int = 8,
    ) -> None:
        super().__init__()
        self.image, self.grid, self.hidden, self.width, self.prompts = image, grid, hidden, width, prompts
        self.vision = vlm.Tower("clip", image, trained or image, PATCH, dim, depth, heads, mlp)
        self.read = tuple(depth + 1 + layer for layer in LAYERS)
        self.necks = nn.ModuleList(Neck(dim, hidden, grid) for _ in LAYERS)
        self.memory = Memory(hidden)
        self.prompter = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, hidden))
        self.multiseg = nn.ParameterList(torch.full((), 1 / TOKENS) for _ in range(TOKENS))
        self.multiscale = nn.ParameterList(torch.full((), 1 / SCALES) for _ in range(SCALES))
        self.no_mask_embed = nn.Embedding(1, hidden)
        self.frequencies: Tensor  # of the coarse scale's positions; drawn once, never trained
        self.register_buffer("frequencies", torch.randn(2, hidden // 2))
        self.mask_decoder = MaskDecoder(hidden)

    def forward(self, x: Tensor, states: Tensor) -> Tensor:
        return self.decode(*self.encode(x), self.prompts_of(states))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image -> the coarse scale's embedding (N, hidden, grid, grid), the fine one's (N, hidden, 2 grid, 2 grid)."""
        side = self.vision.grid
        squares = [s.transpose(1, 2).unflatten(2, (side, side)) for s in self.vision.after(x, *self.read)]
        coarse, fine = (self.memory(neck(square)) for neck, square in zip(self.necks, squares, strict=True))
        return coarse, self.mask_decoder.finer(fine)

    def prompts_of(self, states: Tensor) -> Tensor:
        """States (N, P, 6, width) -> a prompt of each scale (N, P, 2, hidden)."""
        found = self.prompter(states).unflatten(2, (SCALES, TOKENS))
        return torch.stack([weight * found[:, :, :, i] for i, weight in enumerate(self.multiseg)]).sum(0)

    def decode(self, embedding: Tensor, fine: Tensor, prompts: Tensor) -> Tensor:
        """What :meth:`encode` gives, and prompts (N, P, 2, hidden) -> mask logits."""
        n, count = prompts.shape[:2]
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        places = self.positions()
        coarse = self.mask_decoder(embedding + dense, places[0], prompts[:, :, :1], 0)
        # The coarse mask makes its own places count up to twice; each instance has a map of its own from here.
        weighed = (1 + coarse.sigmoid()) * fine[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1) + dense
        last = self.mask_decoder(weighed, places[1], prompts[:, :, 1:].flatten(0, 1)[:, None], 1)
        size = (EDGE * self.grid, EDGE * self.grid)
        coarse = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return (self.multiscale[0] * coarse + self.multiscale[1] * last).unflatten(0, (n, count))  # type: ignore[no-untyped-call, no-any-return]

    def positions(self) -> tuple[Tensor, Tensor]:
        """Position codes of both scales, (1, hidden, g, g)."""
        return fourier_positions(self.frequencies, self.grid), fourier_positions(
            self.mask_decoder.frequencies, 2 * self.grid
        )


class Neck(nn.Module):
    """A layer of the tower as a map (N, dim, g, g) -> (N, hidden, grid, grid)."""

    def __init__(self, dim: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        half = dim // 2
        self.conv1 = nn.Sequential(nn.Conv2d(dim, half, 3, padding=1), nn.BatchNorm2d(half), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(half, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if x.shape[-1] != self.grid:
            x = F.interpolate(x, size=(self.grid, self.grid), mode="bilinear", align_corners=False)
        return self.conv2(x)  # type: ignore[no-any-return]


class Memory(nn.Module):
    """What the memory of classes does in the authors' code: (N, hidden, g, g) -> the same, scaled and normed per place."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return norm_channels(x * (1 + self.scale)[:, None, None], self.norm)


class MaskDecoder(nn.Module):
    """SAM's decoder with a transformer for each scale and one step of upscaling."""

    def __init__(self, dim: int, masks: int = 4, heads: int = 8) -> None:
        super().__init__()
        self.iou_token, self.mask_tokens = nn.Embedding(1, dim), nn.Embedding(masks, dim)
        self.level_embed = nn.Embedding(SCALES, dim)
        self.transformer = nn.ModuleList(TwoWay(dim, heads) for _ in range(SCALES))
        self.finer_conv, self.finer_norm = nn.ConvTranspose2d(dim, dim, 2, 2), nn.LayerNorm(dim, eps=1e-6)
        self.upscale_conv, self.upscale_norm = nn.ConvTranspose2d(dim, dim // 8, 2, 2), nn.LayerNorm(dim // 8, eps=1e-6)
        self.output_hypernetworks_mlps = nn.ModuleList([FeedForward(dim, dim // 8)])
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, dim // 2))

    def finer(self, x: Tensor) -> Tensor:
        """(N, dim, g, g) -> (N, dim, 2g, 2g)."""
        return F.gelu(norm_channels(self.finer_conv(x), self.finer_norm))

    def forward(self, image: Tensor, positions: Tensor, prompts: Tensor, scale: int) -> Tensor:
        """Image (N, dim, g, g) and prompts (N, P, 1, dim) -> masks (N * P, 1, 2g, 2g)."""
        level = self.level_embed.weight[scale]
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight)) + level
        tokens, pixels = look(self.transformer[scale], own, image, positions, prompts + level)
        fine = F.gelu(norm_channels(self.upscale_conv(pixels), self.upscale_norm))
        return masks_of(self.output_hypernetworks_mlps[0](tokens[:, 1:2]), fine)


class _Encoder(nn.Module):
    """``GeoPix.encode`` as a network of its own."""

    def __init__(self, net: GeoPix) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.encode(image)


class _Prompter(nn.Module):
    """``GeoPix.prompts_of`` as a network of its own."""

    def __init__(self, net: GeoPix) -> None:
        super().__init__()
        self.net = net

    def forward(self, states: Tensor) -> Tensor:
        return self.net.prompts_of(states)


class _Decoder(nn.Module):
    """``GeoPix.decode`` as a network of its own."""

    def __init__(self, net: GeoPix) -> None:
        super().__init__()
        self.net = net

    def forward(self, embedding: Tensor, fine: Tensor, prompts: Tensor) -> Tensor:
        return self.net.decode(embedding, fine, prompts)


def parts(net: nn.Module) -> dict[str, Part]:
    """The encoder, run once an image; the prompter, run on the states of the ``[SEG]`` tokens; the decoder behind both."""
    assert isinstance(net, GeoPix)
    grid, hidden, p = net.grid, net.hidden, net.prompts
    decoder = {
        "embedding": torch.randn(1, hidden, grid, grid),
        "fine": torch.randn(1, hidden, 2 * grid, 2 * grid),
        "prompts": torch.randn(1, p, SCALES, hidden),
    }
    states = torch.randn(1, p, SCALES * TOKENS, net.width)
    return {
        "encoder": Part(_Encoder(net), {"image": torch.randn(1, 3, net.image, net.image)}, ("embedding", "fine")),
        "prompter": Part(_Prompter(net), {"states": states}, ("prompts",)),
        "decoder": Part(_Decoder(net), decoder, ("masks",)),
    }


def build(**arch: object) -> nn.Module:
    return GeoPix(**arch)  # type: ignore[arg-type]


def features(net: nn.Module, shape: Shape) -> Features:
    """The tower's layers that are read, and both necks."""
    assert isinstance(net, GeoPix)
    dim = net.vision.patch_embedding.out_channels
    stride = net.image // net.grid
    return (
        *tokens([f"vision.layers.{i}" for i in range(max(net.read))], dim, shape, PATCH, 1),
        *maps(*((f"necks.{i}", stride, net.hidden) for i in range(SCALES))),
    )


FAMILY = Family(build, vlm.fit, vlm.convert, parts, features)
