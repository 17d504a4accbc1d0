"""Control networks of latent diffusion: maps, content and metadata become residuals, tokens and a vector for the denoiser.

Sources: Zhao et al. 2023, "Uni-ControlNet" (one network for all maps, whose features scale and shift normalised ones); Tang et al.
2024, "CRS-Diff" (attention before that, metadata added to the time); Pang et al. 2024, "HSIGene" (an adapter for the text).
Two parts: ``conditions`` runs once a picture, ``control`` once a step, before the step of ``latent_unet``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import Family, Without
from rsedge.models.families.latent_unet import diffusers_name
from rsedge.models.layers.latent_blocks import GROUPS
from rsedge.models.layers.latent_levels import GatedMLP, Level, WayDown
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part

VALUES = 7
"""Of the metadata, each scaled to 0..1."""
CONTENT_TOKENS = 4
MAP_WIDTHS = (32, 64, 64, 128, 128)
MAP_STRIDE = 8
"""Pixels of the maps for one of the latent."""


class LatentControl(nn.Module):
    """Latent, time (N,), prompt (N, L, context), content (N, context), metadata (N, 7), maps (N, maps, 8 l, 8 l) -> text
    (N, L + 4, context), embedding (N, 4 * widths[0]), residuals for every skip connection and the middle.

    Args:
        latent: edge of the latent in the exported graphs.
        guides: channels of the maps' features, one number a level.
        text_adapter: whether the prompt passes an adapter too.
        unit: whether tokens are scaled to length 1.
    """

    def __init__(
        self,
        channels: int = 4,
        latent: int = 64,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        heads: Sequence[int] = (8, 8, 8, 8),
        context: int = 768,
        tokens: int = 77,
        maps: int = 18,
        guides: Sequence[int] = (192, 256, 384, 512),
        text_adapter: bool = False,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.conditions = Conditions(widths[0], context, maps, guides, text_adapter, unit)
        self.control = Control(channels, widths, heads, context, guides)
        self.latent, self.context = (1, channels, latent, latent), (1, tokens, context)
        self.maps = (1, maps, MAP_STRIDE * latent, MAP_STRIDE * latent)
        self.guides = [(1, width, latent >> level, latent >> level) for level, width in enumerate(guides)]

    def forward(
        self, latent: Tensor, time: Tensor, prompt: Tensor, content: Tensor, metadata: Tensor, maps: Tensor
    ) -> tuple[Tensor, ...]:
        text, embedding, *guides = self.conditions(prompt, content, metadata, maps)
        return text, embedding, *self.control(latent, time, text, *guides)


class Conditions(nn.Module):
    """Prompt, content, metadata and maps -> text, embedding, and the maps' features (N, guides[i], l / 2 ** i, l / 2 ** i)."""

    def __init__(
        self, width: int, context: int, maps: int, guides: Sequence[int], text_adapter: bool, unit: bool
    ) -> None:
        super().__init__()
        self.unit = unit
        self.text = Adapter(context, context, 2) if text_adapter else nn.Identity()
        self.content = Adapter(context, CONTENT_TOKENS * context, 4)
        self.metadata = Metadata(width, 4 * width)
        self.maps = MapFeatures(maps, guides)

    def forward(self, prompt: Tensor, content: Tensor, metadata: Tensor, maps: Tensor) -> tuple[Tensor, ...]:
        words = self.text(prompt)
        tokens = self.content(content).unflatten(1, (CONTENT_TOKENS, -1))
        if self.unit:
            words, tokens = F.normalize(words, dim=-1), F.normalize(tokens, dim=-1)
        return torch.cat((words, tokens), 1), self.metadata(metadata), *self.maps(maps)


class Adapter(nn.Module):
    """(..., dim) -> (..., out): two gated MLPs, each behind a norm, ``2 * dim`` wide between them."""

    def __init__(self, dim: int, out: int, times: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(2 * dim)
        self.ff1, self.ff2 = GatedMLP(dim, 2 * dim, times), GatedMLP(2 * dim, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.ff2(self.norm2(self.ff1(self.norm1(x))))  # type: ignore[no-any-return]


class Metadata(nn.Module):
    """Values (N, 7), 0..1 -> (N, out): sines and cosines of a thousand times each, a projection of its own for each, summed."""

    _frequencies: Tensor

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, out) for _ in range(VALUES))
        frequencies = torch.tensor([10000 ** (-2 * i / width) for i in range(width // 2)])
        self.register_buffer("_frequencies", frequencies, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        phases = values[:, :, None] * 1000 * self._frequencies
        waves = torch.stack((phases.sin(), phases.cos()), -1).flatten(2)
        return torch.stack([project(waves[:, i]) for i, project in enumerate(self.projections)]).sum(0)


class MapFeatures(nn.Module):
    """Maps (N, maps, 8 l, 8 l) -> features of each level, the first l x l."""

    def __init__(self, maps: int, guides: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip((maps, *MAP_WIDTHS), MAP_WIDTHS, strict=False)):
            # Half the size at the second and fourth.
            layers += [nn.Conv2d(before, width, 3, 1 + i % 2, 1), nn.SiLU()]
        self.pre_extractor = nn.Sequential(*layers)
        self.extractors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), nn.SiLU())
            for before, width in zip((MAP_WIDTHS[-1], *guides), guides, strict=False)
        )
        self.zero_convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in guides)

    def forward(self, maps: Tensor) -> tuple[Tensor, ...]:
        x, found = self.pre_extractor(maps), []
        for extract, out in zip(self.extractors, self.zero_convs, strict=True):
            x = extract(x)
            found.append(out(x))
        return tuple(found)


class Control(WayDown):
    """Latent, time, text and the maps' features -> residuals for every skip connection and the middle."""

    def __init__(
        self, channels: int, widths: Sequence[int], heads: Sequence[int], context: int, guides: Sequence[int]
    ) -> None:
        super().__init__(channels, widths, heads, context)
        for i, (level, guide) in enumerate(zip(self.down_blocks, guides, strict=True)):
            assert isinstance(level, Level)
            level.resnets[0] = GuidedResNet(widths[max(i - 1, 0)], widths[i], 4 * widths[0], guide)
        *skips, middle = (shape[1] for shape in self.control_shapes(0))
        self.zero_convs = nn.ModuleList(nn.Conv2d(width, width, 1) for width in skips)
        self.middle_block_out = nn.Conv2d(middle, middle, 1)

    def forward(self, latent: Tensor, time: Tensor, text: Tensor, *guides: Tensor) -> tuple[Tensor, ...]:
        middle, skips = self.down(latent, self.time_embedding(time), text, guides)
        found = [out(skip) for out, skip in zip(self.zero_convs, skips, strict=True)]
        return *found, self.middle_block_out(middle)


class GuidedResNet(nn.Module):
    """A residual block whose norms take their scale and shift from the maps' features."""

    def __init__(self, width: int, out: int, embedding: int, guide: int) -> None:
        super().__init__()
        self.norm_in, self.conv1 = GuidedNorm(width, guide), nn.Conv2d(width, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, out)
        self.norm_out, self.conv2 = GuidedNorm(out, guide), nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor, guide: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm_in(x, guide)))
        y = y + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        y = self.conv2(F.silu(self.norm_out(y, guide)))
        return self.conv_shortcut(x) + y  # type: ignore[no-any-return]


class GuidedNorm(nn.Module):
    """Attention of all pixels to all, without a scale, then group normalisation scaled and shifted by convolutions of a map."""

    def __init__(self, width: int, guide: int) -> None:
        super().__init__()
        self.query_conv, self.key_conv = (nn.Conv2d(width, width // 8, 1) for _ in range(2))
        self.value_conv = nn.Conv2d(width, width, 1)
        self.conv_gamma, self.conv_beta = (nn.Conv2d(guide, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        q, k, v = (as_tokens(project(x)) for project in (self.query_conv, self.key_conv, self.value_conv))
        x = x + ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(-2, -1).unflatten(2, x.shape[2:])
        return F.group_norm(x, GROUPS) * (1 + self.conv_gamma(guide)) + self.conv_beta(guide)  # type: ignore[no-any-return]


def from_ldm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the latent-diffusion code base, behind ``control.`` and ``conditions.``, as this network has them."""
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    part, _, rest = name.partition(".")
    if part != "control":
        return name
    rest = re.sub(r"^(zero_convs\.\d+|middle_block_out)\.0\.", r"\1.", diffusers_name(rest))
    return "control." + re.sub(r"\.(norm_in|norm_out)\.(fdn|attention)\.", r".\1.", rest)


def parts(net: nn.Module) -> dict[str, Part]:
    """What runs once a picture, and once a step."""
    assert isinstance(net, LatentControl)
    tokens, width = net.context[1:]
    guides = {f"guide{i}": torch.randn(shape) for i, shape in enumerate(net.guides)}
    given = {
        "prompt": torch.randn(net.context), "content": torch.randn(1, width), "metadata": torch.rand(1, VALUES),
        "maps": torch.rand(net.maps),
    }  # fmt: skip
    step = {
        "latent": torch.randn(net.latent), "time": torch.tensor([500.0]),
        "text": torch.randn(1, tokens + CONTENT_TOKENS, width),
    }  # fmt: skip
    controls = tuple(f"control{i}" for i in range(len(net.control.zero_convs) + 1))
    return {
        "conditions": Part(net.conditions, given, ("text", "embedding", *guides), ("metadata",)),
        "control": Part(net.control, step | guides, controls, ("time",)),
    }


def build(**arch: object) -> nn.Module:
    return LatentControl(**arch)  # type: ignore[arg-type]


FAMILY = Family(
    build,
    convert=from_ldm,
    parts=parts,
    features=Without("it takes latents and conditions, no image, and is learned as parts, by their outputs"),
)
