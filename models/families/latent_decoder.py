"""The decoder of a latent-diffusion autoencoder: latent -> image; names are those of ``diffusers``.

Sources: Rombach et al. 2022 (KL autoencoder); Pang et al. 2024, "HSIGene" (48 bands, attention at the latent's own size).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import Family, Without
from rsedge.models.layers.latent_blocks import GROUPS, Attention, ResNet, Upsample
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part

_EPS = 1e-6


class LatentDecoder(nn.Module):
    """Latent (N, channels, l, l), scaled as the denoiser gives it -> image (N, bands, s * l, s * l), about -1 to 1.

    Args:
        widths: of the levels, from the image to the latent; every level but the first doubles the size.
        z: channels behind the first 1x1 convolution; None for as many as the latent has.
        attention: whether the layers of the innermost level attend to all pixels.
        scale: the factor by which latents were multiplied for the denoiser.
    """

    def __init__(
        self,
        channels: int = 4,
        bands: int = 3,
        latent: int = 64,
        widths: Sequence[int] = (128, 256, 512, 512),
        layers: int = 2,
        z: int | None = None,
        attention: bool = False,
        scale: float = 0.18215,
    ) -> None:
        super().__init__()
        self.shape, self.scale = (1, channels, latent, latent), scale
        self.post_quant_conv = nn.Conv2d(channels, z or channels, 1)
        self.decoder = Decoder(z or channels, bands, tuple(widths), layers, attention)

    def forward(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent / self.scale))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, z: int, bands: int, widths: tuple[int, ...], layers: int, attention: bool) -> None:
        super().__init__()
        inner = widths[-1]
        self.conv_in = nn.Conv2d(z, inner, 3, padding=1)
        self.mid_block = Level([inner, inner], inner, attentions=1)
        self.up_blocks = nn.ModuleList()
        for level, width in enumerate(reversed(widths)):
            looks = layers + 1 if attention and level == 0 else 0
            block = Level([inner, *[width] * layers], width, looks)
            if level < len(widths) - 1:
                block.add_module("upsamplers", nn.ModuleList([Upsample(width)]))
            self.up_blocks.append(block)
            inner = width
        self.conv_norm_out = nn.GroupNorm(GROUPS, inner, _EPS)
        self.conv_out = nn.Conv2d(inner, bands, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Residual blocks, each of the first ``attentions`` followed by attention, then upsampling where there is one."""

    upsamplers: nn.ModuleList

    def __init__(self, ins: Sequence[int], width: int, attentions: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResNet(i, width, eps=_EPS) for i in ins)
        self.attentions = nn.ModuleList(PixelAttention(width) for _ in range(attentions))

    def forward(self, x: Tensor) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x)
            if i < len(self.attentions):
                x = self.attentions[i](x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x  # type: ignore[no-any-return]


class PixelAttention(Attention):
    """Attention of all pixels to all, one head, added to the map."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, bias=True)
        self.group_norm = nn.GroupNorm(GROUPS, width, _EPS)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x + super().forward(as_tokens(self.group_norm(x))).transpose(-2, -1).unflatten(2, x.shape[2:])


_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}


def from_ldm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the latent-diffusion code base, which counts levels from the image, as those of ``diffusers``.

    Its attention projects with 1x1 convolutions; they become matrices.
    """
    levels = [int(found[1]) for name in state if (found := re.match(r"decoder\.up\.(\d+)\.", name))]
    return {
        name: tensor.flatten(1) if ".attentions." in name and tensor.ndim == 4 else tensor
        for name, tensor in ((_renamed(old, max(levels, default=0)), value) for old, value in state.items())
    }


def _renamed(name: str, last: int) -> str:
    name = re.sub(r"^decoder\.norm_out\.", "decoder.conv_norm_out.", name).replace(".nin_shortcut.", ".conv_shortcut.")
    if found := re.match(r"decoder\.mid\.(\w+)\.", name):
        name = f"decoder.mid_block.{_MIDDLE[found[1]]}.{name[found.end() :]}"
    if found := re.match(r"decoder\.up\.(\d+)\.(block|attn|upsample)\.", name):
        kind = {"block": "resnets", "attn": "attentions", "upsample": "upsamplers.0"}[found[2]]
        name = f"decoder.up_blocks.{last - int(found[1])}.{kind}.{name[found.end() :]}"
    if found := re.match(r"(.*\.attentions\.\d+)\.(norm|q|k|v|proj_out)\.", name):
        name = f"{found[1]}.{_ATTENTION[found[2]]}.{name[found.end() :]}"
    return name


def parts(net: nn.Module) -> dict[str, Part]:
    """The decoder, run once an image."""
    assert isinstance(net, LatentDecoder)
    return {"decoder": Part(net, {"latent": torch.randn(net.shape)}, ("image",))}


def build(**arch: object) -> nn.Module:
    return LatentDecoder(**arch)  # type: ignore[arg-type]


FAMILY = Family(
    build,
    convert=from_ldm,
    parts=parts,
    features=Without("it takes latents, no image, and is learned as a part, by its outputs"),
)
