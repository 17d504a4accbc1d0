"""GeoPixel's mask branch: SAM 2's image encoder and mask decoder, without memory, prompted by a language model's hidden states.

Sources: Ravi et al. 2024, "SAM 2"; Ryali et al. 2023, "Hiera" (windows, queries pooled where a stage begins); Shabbir et al. 2025,
"GeoPixel": the hidden state of each ``[SEG]`` token becomes the one prompt of one mask. The language model is the host's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.errors import RequestError
from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape, maps
from rsedge.models.layers import mask_decoder
from rsedge.models.layers.attention import attend_by_products, split
from rsedge.models.layers.mask_decoder import fourier_positions, look, masks_of, norm_channels
from rsedge.models.layers.mlp import mlp
from rsedge.models.parts import Part

PATCH = 4
STRIDE = 16
"""Pixels per place of the image embedding."""
MARGIN, STABLE = 0.05, 0.98
"""A mask is stable where its areas above ``MARGIN`` and above ``-MARGIN`` are alike to this ratio (SAM 2's settings)."""


class SAM2(nn.Module):
    """x (N, 3, image, image), hidden states (N, P, width) -> mask logits (N, P, 1, image/4, image/4), quality (N, P, 1).

    Args:
        dim, heads: of the first stage; each later one has twice as many.
        stages: blocks of each stage.
        whole: blocks that attend to the whole map; the others to the ``windows`` of their stage.
        background: size of the positions that are stretched over the image.
        width: of the language model.
        prompts: instances in the exported decoder.

    Raises:
        RequestError: an image whose maps are no multiples of the windows.
    """

    def __init__(
        self,
        image: int = 1024,
        dim: int = 144,
        heads: int = 2,
        stages: Sequence[int] = (2, 6, 36, 4),
        whole: Sequence[int] = (23, 33, 43),
        windows: Sequence[int] = (8, 4, 16, 8),
        background: int = 7,
        hidden: int = 256,
        width: int = 4096,
        prompts: int = 8,
    ) -> None:
        super().__init__()
        for stage, window in enumerate(windows):
            if image % (PATCH * window << stage):
                raise RequestError(
                    f"image: {image} pixels do not divide into windows of {window} places of {PATCH << stage} pixels"
                )
        self.image, self.hidden, self.width, self.prompts = image, hidden, width, prompts
        self.trunk = Hiera(dim, heads, stages, tuple(whole), windows, background)
        self.neck = nn.ModuleList(nn.Conv2d(dim << stage, hidden, 1) for stage in reversed(range(len(stages))))
        self.conv_s0, self.conv_s1 = nn.Conv2d(hidden, hidden // 8, 1), nn.Conv2d(hidden, hidden // 4, 1)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, hidden))
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, hidden // 2))  # of the positions; drawn once, never trained
        self.no_mask_embed = nn.Embedding(1, hidden)
        self.prompter = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, hidden))
        self.mask_decoder = MaskDecoder(hidden)

    def forward(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(*self.encode(x), self.prompter(states)[:, :, None])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image -> embedding at stride 16, and finer maps at strides 8 and 4 for the last steps of the decoder."""
        finest, finer, fine, coarse = self.trunk(x)
        deepest, deep, shallow, first = self.neck
        embedding = deep(fine) + F.interpolate(deepest(coarse), scale_factor=2.0, mode="nearest")
        # A single image has no memory: its embedding says so.
        embedding = embedding + self.no_mem_embed.reshape(1, -1, 1, 1)
        return embedding, self.conv_s1(shallow(finer)), self.conv_s0(first(finest))

    def decode(self, embedding: Tensor, stride8: Tensor, stride4: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`encode` gives, and prompts (N, P, T, hidden) -> mask logits and quality."""
        found: tuple[Tensor, Tensor] = self.mask_decoder(
            embedding + self.dense(), self.positions(), prompts, stride8, stride4
        )
        return found

    def dense(self) -> Tensor:
        """What stands for a mask that a user would draw, where there is none: (1, hidden, 1, 1)."""
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1)

    def positions(self) -> Tensor:
        """Position code of the embedding (1, hidden, g, g)."""
        return fourier_positions(self.frequencies, self.image // STRIDE)


class Hiera(nn.Module):
    """x (N, 3, H, W) -> a map of each stage, the finest first: (N, dim, H/4, W/4), (N, 2 dim, H/8, W/8), ..."""

    def __init__(
        self,
        dim: int,
        heads: int,
        stages: Sequence[int],
        whole: tuple[int, ...],
        windows: Sequence[int],
        background: int,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 7, PATCH, 3)})
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, background, background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, windows[0], windows[0]))
        self.ends = [sum(stages[: i + 1]) - 1 for i in range(len(stages))]
        self.blocks = nn.ModuleList()
        for stage, count in enumerate(stages):
            for i in range(count):
                first = stage > 0 and i == 0
                # The block that halves the map still has the windows of the stage before it.
                window = 0 if len(self.blocks) in whole else windows[stage - first]
                self.blocks.append(Block(dim << stage - first, dim << stage, heads << stage, window, pool=first))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed["proj"](x)
        x = (x + self.positions(x.shape[-1])).permute(0, 2, 3, 1)
        found = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                found.append(x.permute(0, 3, 1, 2))
        return found

    def positions(self, edge: int) -> Tensor:
        """Positions (1, dim, edge, edge): one stretched over the image, one repeated in every window."""
        times = edge // self.pos_embed_window.shape[-1]
        spread = F.interpolate(self.pos_embed, size=(edge, edge), mode="bicubic")
        return spread + self.pos_embed_window.repeat(1, 1, times, times)


class Block(nn.Module):
    """Attention in windows (or over all, ``window`` 0) and MLP, (N, g, g, dim) -> (N, g, g, out); ``pool`` halves the edge."""

    def __init__(self, dim: int, out: int, heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(out, eps=1e-6)
        self.attn = Attention(dim, out, heads, pool)
        self.mlp = mlp(out, 4 * out)
        if dim != out:
            self.proj = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.pool:
            x = largest(self.proj(y))
        edge = x.shape[1]
        y = joined(self.attn(windows_of(y, self.window)), edge) if self.window else self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention over squares (B, s, s, dim) -> (B, s, s, out); with ``pool`` only the largest queries of 2 x 2 places ask."""

    def __init__(self, dim: int, out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool, self.scale = heads, pool, (out // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * out), nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.pool:
            q = largest(q)
        edge = q.shape[1]
        q, k, v = (split(t.flatten(1, 2), self.heads) for t in (q, k, v))
        return self.proj(attend_by_products(q, k, v, self.scale)).unflatten(1, (edge, edge))  # type: ignore[no-any-return]


def largest(x: Tensor) -> Tensor:
    """The largest value of 2 x 2 places: (B, g, g, C) -> (B, g/2, g/2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def windows_of(x: Tensor, size: int) -> Tensor:
    """(N, g, g, C) -> (N * (g / size)^2, size, size, C)."""
    n, edge, _, channels = x.shape
    count = edge // size
    return x.reshape(n, count, size, count, size, channels).transpose(2, 3).reshape(-1, size, size, channels)


def joined(x: Tensor, edge: int) -> Tensor:
    """Windows (N * (edge / size)^2, size, size, C) -> (N, edge, edge, C)."""
    size, channels = x.shape[1], x.shape[3]
    count = edge // size
    return x.reshape(-1, count, count, size, size, channels).transpose(2, 3).reshape(-1, edge, edge, channels)


class MaskDecoder(mask_decoder.MaskDecoder):
    """SAM's decoder with a token that says whether the object is there, and with finer maps in the last two steps.

    Of four masks the first is that of an unambiguous prompt; where it is not stable, the one of the others with the best quality
    takes its place.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.obj_score_token = nn.Embedding(1, dim)

    def forward(  # type: ignore[override]
        self, image: Tensor, positions: Tensor, prompts: Tensor, stride8: Tensor, stride4: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, count = prompts.shape[:2]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens, pixels = look(self.transformer, own, image, positions, prompts)
        stride8, stride4 = (m[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1) for m in (stride8, stride4))
        fine = F.gelu(norm_channels(self.upscale_conv1(pixels) + stride8, self.upscale_layer_norm))
        fine = F.gelu(self.upscale_conv2(fine) + stride4)
        quality = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        kernels = torch.stack([head(tokens[:, 2 + i]) for i, head in enumerate(self.output_hypernetworks_mlps)], 1)
        best = quality[:, 1:].argmax(-1, keepdim=True) == torch.arange(quality.shape[1] - 1, device=quality.device)
        mask, quality = stable_or_best(kernels, quality, best.float(), fine)
        return mask.unflatten(0, (n, count)), quality.reshape(n, count, 1)  # type: ignore[no-untyped-call]


def stable_or_best(kernels: Tensor, quality: Tensor, best: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """One mask (B, 1, H, W) and its quality (B, 1) of kernels (B, K, C), qualities (B, K) and maps (B, C, H, W).

    Args:
        best: 1 at the best of the kernels behind the first, else 0: (B, K - 1).
    """
    other = (best[..., None] * kernels[:, 1:]).sum(1, keepdim=True)
    pair = masks_of(torch.cat((kernels[:, :1], other), 1), fine)
    single = pair[:, :1]
    inner, outer = ((single > edge).float().mean((2, 3)) for edge in (MARGIN, -MARGIN))
    # Where nothing lies above either edge the ratio is 1 in the authors' code.
    stable = inner >= STABLE * outer
    mask = torch.where(stable[..., None, None], single, pair[:, 1:])
    return mask, torch.where(stable, quality[:, :1], (best * quality[:, 1:]).sum(1, keepdim=True))


class _Encoder(nn.Module):
    """``SAM2.encode`` as a network of its own."""

    def __init__(self, sam: SAM2) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.sam.encode(image)


class _Prompter(nn.Module):
    """Hidden states (N, P, width) -> prompts (N, P, 1, hidden)."""

    def __init__(self, sam: SAM2) -> None:
        super().__init__()
        self.prompter = sam.prompter

    def forward(self, states: Tensor) -> Tensor:
        return self.prompter(states)[:, :, None]  # type: ignore[no-any-return]


class _Decoder(nn.Module):
    """``SAM2.decode`` as a network of its own; positions are constants."""

    def __init__(self, sam: SAM2) -> None:
        super().__init__()
        self.mask_decoder = sam.mask_decoder
        self.dense: Tensor
        self.positions: Tensor
        self.register_buffer("dense", sam.dense().detach())
        self.register_buffer("positions", sam.positions().detach())

    def forward(self, embedding: Tensor, prompts: Tensor, stride8: Tensor, stride4: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.mask_decoder(
            embedding + self.dense, self.positions, prompts, stride8, stride4
        )
        return found


def parts(net: nn.Module) -> dict[str, Part]:
    """The encoder, run once an image; the prompter, run on the hidden states of the ``[SEG]`` tokens; the decoder behind both.

    Instances do not see one another: with fewer than the decoder's, fill up and drop what comes of the filling.
    """
    assert isinstance(net, SAM2)
    grid, hidden, p = net.image // STRIDE, net.hidden, net.prompts
    image = torch.randn(1, 3, net.image, net.image)
    decoder = {
        "embedding": torch.randn(1, hidden, grid, grid),
        "prompts": torch.randn(1, p, 1, hidden),
        "stride8": torch.randn(1, hidden // 4, 2 * grid, 2 * grid),
        "stride4": torch.randn(1, hidden // 8, 4 * grid, 4 * grid),
    }
    return {
        "encoder": Part(_Encoder(net), {"image": image}, ("embedding", "stride8", "stride4")),
        "prompter": Part(_Prompter(net), {"states": torch.randn(1, p, net.width)}, ("prompts",)),
        "decoder": Part(_Decoder(net), decoder, ("masks", "quality")),
    }


def build(**arch: object) -> nn.Module:
    return SAM2(**arch)  # type: ignore[arg-type]


def features(net: nn.Module, shape: Shape) -> Features:
    """The trunk's blocks, whose maps have their channels last, and the three maps that the decoder reads."""
    assert isinstance(net, SAM2)
    blocks, stage = [], 0
    for i, block in enumerate(net.trunk.blocks):
        assert isinstance(block, Block)
        stage += block.pool
        blocks.append(Feature(f"trunk.blocks.{i}", block.norm2.normalized_shape[0], "NHWC", PATCH << stage))
    return (*blocks, *maps(("conv_s0", 4, net.hidden // 8), ("conv_s1", 8, net.hidden // 4)))


FAMILY = Family(build, parts=parts, features=features)
