"""One denoising step of latent diffusion: the U-Net of Stable Diffusion 1.5 and 2, with names as in ``diffusers``.

Sources: Rombach et al. 2022; Liu et al. 2025, "Text2Earth" (ground resolution as a second time); Tang et al. 2024, "CRS-Diff" and
Pang et al. 2024, "HSIGene" (residuals of control networks added to the skip connections); Yu et al. 2024, "MetaEarth".
The sampler runs on the host and calls this graph once per step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import Family, Without
from rsedge.models.layers.latent_blocks import GROUPS, Upsample
from rsedge.models.layers.latent_levels import LAYERS, Level, TimeEmbedding, WayDown, levels
from rsedge.models.parts import Part


class LatentUNet(WayDown):
    """Noisy latent, time (N,), text (N, L, context), resolution (N,) -> noise, of the latent's shape.

    Args:
        latent: edge of the latent in the exported graph.
        heads: attention heads of the four levels; the last level has attention only in the middle.
        context: width of the text; 0 for a network without text.
        resolution: whether the ground resolution level is a condition.
        embedding: whether a vector comes as an input that is added to the time's.
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
        embedding: bool = False,
        controls: bool = False,
    ) -> None:
        super().__init__(channels, widths, heads, context, linear)
        self.shape, self.text = (1, channels, latent, latent), (1, tokens, context) if context else None
        emb, last = 4 * widths[0], len(widths) - 1
        if resolution:
            self.class_embedding = TimeEmbedding(widths[0], emb)
        self.resolution, self.embedding, self.controls = resolution, embedding, controls
        # What the way up adds to each of its layers: the skip connections, last first.
        self.up_blocks = nn.ModuleList()
        below = widths[-1]
        for i in reversed(range(last + 1)):
            width, skips = widths[i], [widths[i]] * LAYERS + [widths[max(i - 1, 0)]]
            ins = [below + skips[0], *(width + skip for skip in skips[1:])]
            level = Level(ins, width, emb, heads[i] if i < last else 0, context, linear)
            if i:
                level.add_module("upsamplers", nn.ModuleList([Upsample(width)]))
            self.up_blocks.append(level)
            below = width
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[0], 1e-5)
        self.conv_out = nn.Conv2d(widths[0], out, 3, padding=1)

    def forward(self, latent: Tensor, time: Tensor, *conditions: Tensor) -> Tensor:
        """Conditions in this order, each where there is one: text, resolution, embedding, controls (skips, then the middle)."""
        rest = list(conditions)
        text = rest.pop(0) if self.text else None
        embedding = self.time_embedding(time)
        if self.resolution:
            embedding = embedding + self.class_embedding(rest.pop(0))
        if self.embedding:
            embedding = embedding + rest.pop(0)
        x, skips = self.down(latent, embedding, text)
        if self.controls:
            skips = [skip + control for skip, control in zip(skips, rest[:-1], strict=True)]
            x = x + rest[-1]
        for block in levels(self.up_blocks):
            for i in range(LAYERS + 1):
                x = block.layer(i, torch.cat((x, skips.pop()), 1), embedding, text)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


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
    return {diffusers_name(name): tensor for name, tensor in state.items()}


def diffusers_name(name: str) -> str:
    """A denoiser's or control network's name in the latent-diffusion code base as ``diffusers`` has it; others unchanged."""
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
    if net.embedding:
        inputs["embedding"] = torch.randn(1, 4 * net.widths[0])
    if net.controls:
        shapes = net.control_shapes(net.shape[2])
        inputs |= {f"control{i}": torch.randn(shape) for i, shape in enumerate(shapes)}
    return {"step": Part(net, inputs, ("noise",), ("time", "resolution"))}


def build(**arch: object) -> nn.Module:
    return LatentUNet(**arch)  # type: ignore[arg-type]


FAMILY = Family(
    build,
    convert=from_ldm,
    parts=parts,
    features=Without("it takes latents, no image, and is learned as a part, by its outputs"),
)
