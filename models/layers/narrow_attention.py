"""timm's attentions with heads of any width: queries and keys of one, values of another, as many as their weights have.

timm reads one width for all three off the network's dimension. What a module was built with stays its scale, so scores are
those of the network before its heads were narrowed, less what is gone. A module takes on its narrow class in place: its parts,
their names and what else it keeps stay.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from rsedge.models.layers.attention import attend_by_products, joined, parted, split


class NarrowAttention(Attention):  # type: ignore[misc]
    """Of ViT: (N, L, dim) -> same."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = (split(part, self.num_heads) for part in parted(self.qkv(x), self.qkv, self.proj.in_features))
        q, k = self.q_norm(q), self.k_norm(k)
        dropped = self.attn_drop.p if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask, dropped, is_causal, scale=self.scale)
        return self.proj_drop(self.proj(joined(found)))  # type: ignore[no-any-return]


class NarrowWindowAttention(WindowAttention):  # type: ignore[misc]
    """Of Swin: windows (N * windows, L, dim) -> same; without dropout of attention."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (split(part, self.num_heads) for part in parted(self.qkv(x), self.qkv, self.proj.in_features))
        bias = self._get_rel_pos_bias()
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(x.shape[0] // mask.shape[0], 1, 1, 1)
        return self.proj_drop(self.proj(attend_by_products(q, k, v, self.scale, bias)))  # type: ignore[no-any-return]


NARROW: dict[type[nn.Module], type[nn.Module]] = {Attention: NarrowAttention, WindowAttention: NarrowWindowAttention}
"""timm's class -> the one that takes any width; subclasses of timm's do more and are not among them."""


def takes_any_width(layer: nn.Module) -> bool:
    """Whether an attention runs, at the scale it was built with, when its heads lose dimensions: it says so itself
    (``head_widths_free``), or it is one of timm's that :func:`follow_widths` knows."""
    if getattr(layer, "head_widths_free", False) is True:
        return True
    known: Any = layer
    return isinstance(layer, tuple(NARROW.values())) or (type(layer) in NARROW and known.attn_drop.p == 0)


def follow_widths(module: nn.Module) -> None:
    """Gives timm's attentions whose heads are no longer as wide as they were built the class that runs so, in place."""
    for layer in module.modules():
        if type(layer) in NARROW and _narrowed(layer):
            layer.__class__ = NARROW[type(layer)]


def _narrowed(layer: Any) -> bool:
    built = layer.num_heads * round(layer.scale**-2)
    return bool(layer.qkv.out_features != 3 * built or layer.proj.in_features != built)
