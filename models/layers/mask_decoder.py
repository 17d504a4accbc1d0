"""What the mask decoders of SAM's kind share: prompts look at the image, the image at the prompts. Names are ``transformers``'.

Source: Kirillov et al. 2023, "Segment Anything".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.layers.attention import attend_by_products, split
from rsedge.models.layers.mlp import mlp
from rsedge.models.layers.patches import as_tokens


def norm_channels(x: Tensor, norm: nn.Module) -> Tensor:
    """A LayerNorm over the channels of (N, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def fourier_positions(frequencies: Tensor, grid: int) -> Tensor:
    """Position code (1, 2 * K, grid, grid) of the middles of a square grid, by random frequencies (2, K) of x and y."""
    steps = (torch.arange(grid, device=frequencies.device, dtype=frequencies.dtype) + 0.5) / grid * 2 - 1
    x, y = steps.expand(grid, grid), steps[:, None].expand(grid, grid)
    phases = 2 * math.pi * torch.stack((x, y), -1) @ frequencies
    return torch.cat((phases.sin(), phases.cos()), -1).permute(2, 0, 1)[None]


class MaskDecoder(nn.Module):
    """Prompts look at the image and the image at the prompts, twice; each instance then gives one mask and its quality.

    Args:
        eps: of the norms between prompts and image: 1e-5 in the authors' code of SAM and SAM 2, 1e-6 in transformers' SAM.
    """

    def __init__(self, dim: int, masks: int = 4, heads: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        self.iou_token, self.mask_tokens = nn.Embedding(1, dim), nn.Embedding(masks, dim)
        self.transformer = TwoWay(dim, heads, eps)
        self.upscale_conv1 = nn.ConvTranspose2d(dim, dim // 4, 2, 2)
        self.upscale_layer_norm = nn.LayerNorm(dim // 4, eps=1e-6)
        self.upscale_conv2 = nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2)
        self.output_hypernetworks_mlps = nn.ModuleList(FeedForward(dim, dim // 8) for _ in range(masks))
        self.iou_prediction_head = FeedForward(dim, masks)

    def forward(self, image: Tensor, positions: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Image (N, dim, g, g), positions (1, dim, g, g), prompts (N, P, T, dim) -> masks (N, P, 1, 4g, 4g), quality (N, P, 1)."""
        n, count = prompts.shape[:2]
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens, pixels = look(self.transformer, own, image, positions, prompts)
        fine = F.gelu(norm_channels(self.upscale_conv1(pixels), self.upscale_layer_norm))
        fine = F.gelu(self.upscale_conv2(fine))
        # Of four mask tokens the first is read: the one mask of an unambiguous prompt.
        mask = masks_of(self.output_hypernetworks_mlps[0](tokens[:, 1:2]), fine)
        return mask.unflatten(0, (n, count)), self.iou_prediction_head(tokens[:, 0])[:, :1].reshape(n, count, 1)  # type: ignore[no-untyped-call]


def look(
    transformer: nn.Module, own: Tensor, image: Tensor, positions: Tensor, prompts: Tensor
) -> tuple[Tensor, Tensor]:
    """Every instance's tokens, the decoder's own (K, dim) ahead of its prompts (N, P, T, dim), and its view of the image.

    Returns:
        Tokens (N * P, K + T, dim) and the image (N * P, dim, g, g).
    """
    n, count, _, dim = prompts.shape
    tokens = torch.cat((own.expand(n, count, -1, -1), prompts), 2).flatten(0, 1)
    pixels = as_tokens(image)[:, None].expand(-1, count, -1, -1).flatten(0, 1)
    tokens, pixels = transformer(tokens, pixels, as_tokens(positions))
    return tokens, pixels.transpose(-2, -1).reshape(n * count, dim, *image.shape[-2:])


def masks_of(kernels: Tensor, fine: Tensor) -> Tensor:
    """Kernels (B, K, C) over maps (B, C, H, W) -> masks (B, K, H, W)."""
    return (kernels @ fine.flatten(2)).reshape(*kernels.shape[:2], *fine.shape[-2:])


class FeedForward(nn.Module):
    """(..., dim) -> (..., out) through two hidden layers of ``dim`` units."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.proj_in, self.proj_out = nn.Linear(dim, dim), nn.Linear(dim, out)
        self.layers = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(F.relu(self.layers[0](F.relu(self.proj_in(x)))))  # type: ignore[no-any-return]


class TwoWay(nn.Module):
    """Two blocks of self-attention, prompt to image, MLP, image to prompt; then prompt to image once more."""

    def __init__(self, dim: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, eps, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = Attention(dim, dim // 2, heads)
        self.layer_norm_final_attn = nn.LayerNorm(dim)

    def forward(self, prompts: Tensor, pixels: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, prompts, positions)
        tokens = tokens + self.final_attn_token_to_image(tokens + prompts, pixels + positions, pixels)
        return self.layer_norm_final_attn(tokens), pixels


class TwoWayBlock(nn.Module):
    def __init__(self, dim: int, heads: int, eps: float, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, dim, heads)
        self.cross_attn_token_to_image = Attention(dim, dim // 2, heads)
        self.cross_attn_image_to_token = Attention(dim, dim // 2, heads)
        self.layer_norm1, self.layer_norm2, self.layer_norm3, self.layer_norm4 = (
            nn.LayerNorm(dim, eps) for _ in range(4)
        )
        self.mlp = mlp(dim, 8 * dim, nn.ReLU(), ("lin1", "lin2"))

    def forward(self, tokens: Tensor, pixels: Tensor, prompts: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        placed = tokens + prompts
        # The first block's tokens are the prompts themselves: no residual, no second addition.
        tokens = (
            self.self_attn(tokens, tokens, tokens) if self.first else tokens + self.self_attn(placed, placed, tokens)
        )
        tokens = self.layer_norm1(tokens)
        tokens = tokens + self.cross_attn_token_to_image(tokens + prompts, pixels + positions, pixels)
        tokens = self.layer_norm2(tokens)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        pixels = pixels + self.cross_attn_image_to_token(pixels + positions, tokens + prompts, tokens)
        return tokens, self.layer_norm4(pixels)


class Attention(nn.Module):
    """Attention of (N, L, dim) to (N, M, dim) in ``width`` channels."""

    def __init__(self, dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, width) for _ in range(3))
        self.out_proj = nn.Linear(width, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (split(p(t), self.heads) for p, t in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v)))
        return self.out_proj(attend_by_products(q, k, v, self.scale))  # type: ignore[no-any-return]
