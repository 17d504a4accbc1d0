"""One denoising step of latent diffusion: the U-Net of Stable Diffusion 1.5 and 2, with names as in ``diffusers``.

Sources: Rombach et al. 2022; Liu et al. 2025, "Text2Earth" (ground resolution as a second time); Tang et al. 2024, "CRS-Diff" and
Pang et al. 2024, "HSIGene" (residuals of control networks added to the skip connections); Yu et al. 2024, "MetaEarth".
The sampler runs on the host and calls this graph once per step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import Family, Without
from rsedge.models.layers.latent_blocks import GROUPS, Attention, Downsample, ResNet, Upsample
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part

LAYERS = 2


class LatentUNet(nn.Module):
    """Noisy latent, time (N,), text (N, L, context), resolution (N,) -> noise, of the latent's shape.

    Args:
        latent: edge of the latent in the exported graph.
        heads: attention heads of the four levels; the last level has attention only in the middle.
        context: width of the text; 0 for a network without text.
        resolution: whether the ground resolution level is a condition.
        controls: whether residuals for the skip connections and the middle come as inputs, as control networks give them.
    """

    def __init__(
        self,
        channels: int = 4,
        out: int = 4,
        latent: int = 64,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        heads: Sequence[int] = (8, 8, 8, 8),
        context: int = 768,
        tokens: int = 77,
        linear: bool = False,
        resolution: bool = False,
        controls: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.text = (1, channels, latent, latent), (1, tokens, context) if context else None
        self.widths, self.controls, emb = tuple(widths), controls, 4 * widths[0]
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], emb)
        if resolution:
            self.class_embedding = TimeEmbedding(widths[0], emb)
        self.resolution = resolution
        last = len(widths) - 1

        def level(ins: Sequence[int], width: int, depth: int) -> Level:
            has_attention = depth < last
            return Level(ins, width, emb, heads[depth] if has_attention else 0, context, linear)

        before = [widths[max(i - 1, 0)] for i in range(last + 1)]
        self.down_blocks = nn.ModuleList(
            level([before[i], *[width] * (LAYERS - 1)], width, i) for i, width in enumerate(widths)
        )
        for block, width in zip(self.down_blocks[:-1], widths, strict=False):
            block.add_module("downsamplers", nn.ModuleList([Downsample(width)]))
        self.mid_block = Level([widths[-1]] * 2, widths[-1], emb, heads[-1], context, linear, attentions=1)
        # What the way up adds to each of its layers: the skip connections, last first.
        self.up_blocks = nn.ModuleList()
        width = widths[-1]
        for i in reversed(range(last + 1)):
            skips = [widths[i]] * LAYERS + [before[i]]
            self.up_blocks.append(level([width + skips[0], *(widths[i] + s for s in skips[1:])], widths[i], i))
            width = widths[i]
        for block, width in zip(self.up_blocks[:-1], reversed(widths), strict=False):
            block.add_module("upsamplers", nn.ModuleList([Upsample(width)]))
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[0], 1e-5)
        self.conv_out = nn.Conv2d(widths[0], out, 3, padding=1)

    def forward(self, latent: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        """Conditions in this order, each where the network has it: text, resolution, controls (skips, then the middle)."""
        rest = list(conditions)
        text = rest.pop(0) if self.text else None
        embedding = self.time_embedding(time)
        if self.resolution:
            embedding = embedding + self.class_embedding(rest.pop(0))
        x = self.conv_in(latent)
        skips = [x]
        for block in self._levels(self.down_blocks):
            for i in range(LAYERS):
                x = block.layer(i, x, embedding, text)
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.layer(0, x, embedding, text)
        x = self.mid_block.resnets[1](x, embedding)
        if self.controls:
            skips = [skip + control for skip, control in zip(skips, rest[:-1], strict=True)]
            x = x + rest[-1]
        for block in self._levels(self.up_blocks):
            for i in range(LAYERS + 1):
                x = block.layer(i, torch.cat((x, skips.pop()), 1), embedding, text)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]

    @staticmethod
    def _levels(blocks: nn.ModuleList) -> list[Level]:
        return [block for block in blocks if isinstance(block, Level)]

    def control_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the control residuals for the exported latent: every skip connection, then the middle."""
        found, edge = [(1, self.widths[0], *self.shape[2:])], self.shape[2]
        for i, width in enumerate(self.widths):
            found += [(1, width, edge, edge)] * LAYERS
            if i < len(self.widths) - 1:
                edge //= 2
                found.append((1, width, edge, edge))
        return [*found, found[-1]]


class TimeEmbedding(nn.Module):
    """Cosines and sines of a number (N,) at ``width / 2`` frequencies, through an MLP to (N, out)."""

    _frequencies: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, out), nn.Linear(out, out)
        half = width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        self.register_buffer("_frequencies", frequencies, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        phases = value[:, None] * self._frequencies
        waves = torch.cat((phases.cos(), phases.sin()), 1)
        return self.linear_2(F.silu(self.linear_1(waves)))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Layers of one resolution: a residual block each, followed by attention where ``heads`` is not 0."""

    downsamplers: nn.ModuleList
    upsamplers: nn.ModuleList

    def __init__(
        self,
        ins: Sequence[int],
        width: int,
        embedding: int,
        heads: int,
        context: int,
        linear: bool,
        attentions: int | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResNet(i, width, embedding) for i in ins)
        if heads:
            count = len(ins) if attentions is None else attentions
            self.attentions = nn.ModuleList(Transformer(width, heads, context, linear) for _ in range(count))

    def layer(self, i: int, x: Tensor, embedding: Tensor, text: Tensor | None) -> Tensor:
        x = self.resnets[i](x, embedding)
        return self.attentions[i](x, text) if hasattr(self, "attentions") else x  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """One transformer block over the pixels of (N, width, h, w): to each other, to the text, gated MLP."""

    def __init__(self, width: int, heads: int, context: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(GROUPS, width, 1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([Block(width, heads, context)])

    def forward(self, x: Tensor, text: Tensor | None) -> Tensor:
        size = x.shape[2:]
        y = self.norm(x)
        pixels = self.proj_in(as_tokens(y)) if self.linear else as_tokens(self.proj_in(y))
        pixels = self.transformer_blocks[0](pixels, text)
        if self.linear:
            return x + self.proj_out(pixels).transpose(-2, -1).unflatten(2, size)  # type: ignore[no-any-return]
        return x + self.proj_out(pixels.transpose(-2, -1).unflatten(2, size))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Without text the second attention is to the pixels once more, as in ``diffusers``."""

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.attn1, self.attn2 = Attention(dim, heads), Attention(dim, heads, context or None)
        # The middle entry was a dropout.
        self.ff = nn.ModuleDict({"net": nn.Sequential(Gate(dim), nn.Identity(), nn.Linear(4 * dim, dim))})

    def forward(self, x: Tensor, text: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff["net"](self.norm3(x))  # type: ignore[no-any-return]


class Gate(nn.Module):
    """(..., dim) -> (..., 4 dim): one half of a projection, gated by the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, -1)
        return values * F.gelu(gate)  # type: ignore[no-any-return]


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")


def from_ldm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names of the latent-diffusion code base under those of ``diffusers``; others unchanged."""
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    for old, new in _ENDS.items():
        if name.startswith(old + "."):
            return _inside(f"{new}.{name[len(old) + 1 :]}")
    if not (found := _BLOCK.match(name)):
        return name
    way, number, kind, rest = found[1], int(found[2]), int(found[3]), found[4]
    # Down: one convolution, then per level two layers and a downsampling. Up: per level three layers, an upsampling in the last.
    level, layer = divmod(number - 1 if way == "input" else number, LAYERS + 1)
    block = f"{'down' if way == 'input' else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{rest[3:]}"
    if kind > 0 and rest.startswith("conv."):
        return f"{block}.upsamplers.0.{rest}"
    return _inside(f"{block}.{'attentions' if kind else 'resnets'}.{layer}.{rest}")


def _inside(name: str) -> str:
    for old, new in _RESNET.items():
        if f".{old}." in name:
            return name.replace(f".{old}.", f".{new}.")
    return name


def parts(net: nn.Module) -> dict[str, Part]:
    """The denoising step."""
    assert isinstance(net, LatentUNet)
    inputs = {"latent": torch.randn(net.shape), "time": torch.tensor([500.0])}
    if net.text:
        inputs["text"] = torch.randn(net.text)
    if net.resolution:
        inputs["resolution"] = torch.tensor([16.0])
    if net.controls:
        inputs |= {f"control{i}": torch.randn(shape) for i, shape in enumerate(net.control_shapes())}
    return {"step": Part(net, inputs, ("noise",), ("time", "resolution"))}


def build(**arch: object) -> nn.Module:
    return LatentUNet(**arch)  # type: ignore[arg-type]


FAMILY = Family(
    build,
    convert=from_ldm,
    parts=parts,
    features=Without("it takes latents, no image, and is learned as a part, by its outputs"),
)
