"""What the denoiser and the decoder of latent diffusion share; names are those of ``diffusers``.

Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.layers.attention import attend_by_products, split

GROUPS = 32


class ResNet(nn.Module):
    """Two 3x3 convolutions with group normalisation, and the embedding of the time between them where there is one."""

    def __init__(self, width: int, out: int, embedding: int = 0, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, width, eps), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, out, eps), nn.Conv2d(out, out, 3, padding=1)
        if embedding:
            self.time_emb_proj = nn.Linear(embedding, out)
        if width != out:
            self.conv_shortcut = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        if embedding is not None:
            y = y + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Half the size by a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of (N, L, dim) to (N, M, context)."""

    def __init__(self, dim: int, heads: int, context: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k, self.to_v = (nn.Linear(context or dim, dim, bias=bias) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        pairs = (self.to_q, x), (self.to_k, context), (self.to_v, context)
        q, k, v = (split(project(t), self.heads) for project, t in pairs)
        return self.to_out[0](attend_by_products(q, k, v, self.scale))  # type: ignore[no-any-return]
