"""Swin Transformers V2 in torchvision's layout: SatlasPretrain.

Source: Liu et al. 2022, "Swin Transformer V2"; Bastani et al. 2023, "SatlasPretrain".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)

from rsedge.models.families import Family
from rsedge.models.features import Feature, Features, Shape
from rsedge.models.layers.largest import Largest

_MASKED = -100.0


class WindowAttention(ShiftedWindowAttentionV2):
    """torchvision's cosine attention in shifted windows, computed without writing into tensors.

    Those writes (a key bias set to 0, a mask filled region by region) are exported as ScatterND, which edge runtimes lack.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, dim) -> the same shape."""
        height, width = x.shape[1:3]
        window, (shift_h, shift_w) = self.window_size[0], self.shift_size
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        padded = x.shape[1:3]
        shift = (shift_h if window < padded[0] else 0, shift_w if window < padded[1] else 0)
        x = torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        mask = self._mask(padded, shift, x.device) if any(shift) else None
        out = _merge(self._attend(_split(x, window), mask), x.shape, window)
        out = torch.roll(out, shift, (1, 2)) if any(shift) else out
        return out[:, :height, :width]

    def _attend(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (windows, window * window, dim) -> the same; mask (windows of one image, L, L) is added."""
        query, key, value = self.qkv.bias.chunk(3)
        without_key = torch.cat([query, torch.zeros_like(key), value])
        qkv = F.linear(tokens, self.qkv.weight, without_key)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))  # type: ignore[no-untyped-call]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * self.logit_scale.clamp(max=4.605170185988092).exp() + self.get_relative_position_bias()
        if mask is not None:
            scores = (scores.unflatten(0, (-1, len(mask))) + mask[None, :, None]).flatten(0, 1)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _mask(self, size: torch.Size, shift: tuple[int, int], device: torch.device) -> Tensor:
        """0 between pixels that were neighbours before rolling, -100 between others: (windows, L, L)."""
        window = self.window_size[0]
        rows, columns = (_regions(n, window, s, device) for n, s in zip(size, shift, strict=True))
        region = _split((3 * rows[:, None] + columns)[None, :, :, None], window)[..., 0]
        return (region[:, None] != region[:, :, None]).float() * _MASKED


def _regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Which of three stretches a rolled row lies in: whole windows, the last window's own part, what was rolled in."""
    index = torch.arange(length, device=device)
    return (index >= length - window).long() + ((index >= length - shift).long() if shift else 0)


def _split(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) -> (N * windows, window * window, C)."""
    n, height, width, channels = x.shape
    tiles = x.view(n, height // window, window, width // window, window, channels).transpose(2, 3)
    return tiles.reshape(-1, window * window, channels)


def _merge(tokens: Tensor, shape: torch.Size, window: int) -> Tensor:
    """The inverse of :func:`_split`."""
    n, height, width, channels = shape
    tiles = tokens.view(n, height // window, width // window, window, window, channels).transpose(2, 3)
    return tiles.reshape(n, height, width, channels)


class SeveralImages(SwinTransformer):
    """x (N, frames, bands, H, W) -> features (N, 8 * dim): the mean over the largest values of all images' last maps."""

    largest: Largest

    def forward(self, x: Tensor) -> Tensor:
        largest: Tensor = self.largest(self.features(x.flatten(0, 1)))
        return largest.mean((1, 2))


def build(
    bands: int, dim: int, depths: Sequence[int], heads: Sequence[int], window: int = 8, frames: int = 1
) -> nn.Module:
    """x (N, bands, H, W) -> features (N, 8 * dim), the mean over the last stage's map without a norm, as its authors take it.

    H and W that are multiples of 32 * window fit without padding.

    Args:
        frames: images of one place; more than one make :class:`SeveralImages`.
    """
    kind = SeveralImages if frames > 1 else SwinTransformer
    net = kind(
        patch_size=[4, 4], embed_dim=dim, depths=list(depths), num_heads=list(heads), window_size=[window, window],
        num_classes=1, block=partial(SwinTransformerBlockV2, attn_layer=WindowAttention), downsample_layer=PatchMergingV2,
    )  # fmt: skip
    if bands != 3:
        net.features[0][0] = nn.Conv2d(bands, dim, 4, 4)
    net.norm, net.head = nn.Identity(), nn.Identity()
    if isinstance(net, SeveralImages):
        net.largest = Largest(frames)
    return net


def features(net: nn.Module, shape: Shape) -> Features:
    """The four stages; of several images, whose maps stand along the batch, the largest values of the last one."""
    assert isinstance(net, SwinTransformer)
    dim, count = net.features[0][0].out_channels, len(net.features) // 2
    if isinstance(net, SeveralImages):
        return (Feature("largest", dim * 2 ** (count - 1), "NHWC", 4 * 2 ** (count - 1)),)
    return tuple(Feature(f"features.{1 + 2 * i}", dim * 2**i, "NHWC", 4 * 2**i) for i in range(count))


FAMILY = Family(build, features=features)
