"""The stream between the blocks of a transformer: what makes it, adds to it, normalises and reads it, and so goes with its width.

timm's ViT and Swin are described here; other networks describe their own (a method ``streams`` that gives a list of
:class:`Stream`). Descriptions are checked, not trusted: what they leave out is found (:mod:`rsedge.compress.prune.widths`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn


@dataclass(frozen=True)
class Stream:
    """A width that all blocks in some folders share. Names are below the module that holds the stream.

    A side of a norm or of a reader that is ``k`` times as wide holds ``k`` copies of the stream, one after the other.

    Attributes:
        makes: layers that write it; the first names it.
        blocks: folders whose children take it and give it back.
        adds: parameters whose last axis is added to it -> where in it they begin.
        norms: layers that normalise it.
        reads: what may read it: linear layers and convolutions; where none of them is there, it is the network's output.
        apart: folders that see nothing of it.
    """

    makes: tuple[str, ...]
    blocks: tuple[str, ...]
    adds: dict[str, int]
    norms: tuple[str, ...]
    reads: tuple[str, ...]
    apart: tuple[str, ...] = ()


def streams_of(module: nn.Module) -> list[Stream]:
    """What a network describes or is known by; none for all others."""
    known = KNOWN.get(type(module), getattr(type(module), "streams", None))
    return known(module) if known is not None else []


def _vit(net: Any) -> list[Stream]:
    tokens = [n for n in ("cls_token", "reg_token", "pos_embed") if isinstance(getattr(net, n), nn.Parameter)]
    norms = ("patch_embed.norm", "norm_pre", "norm", "fc_norm")
    return [Stream(("patch_embed.proj",), ("blocks",), dict.fromkeys(tokens, 0), norms, ("head",))]


def _swin(net: Any) -> list[Stream]:
    """One a stage; the next one's merging of four places reads it, the head the last."""
    found, last = [], len(net.layers) - 1
    for i in range(len(net.layers)):
        makes, norms = (f"layers.{i}.downsample.reduction",), tuple[str, ...]()
        if i == 0:
            makes, norms = ("patch_embed.proj",), ("patch_embed.norm",)
        after = f"layers.{i + 1}.downsample"
        ends = ("norm", "head.fc") if i == last else (f"{after}.norm", f"{after}.reduction")
        found.append(Stream(makes, (f"layers.{i}.blocks",), {}, (*norms, ends[0]), (ends[1],)))
    return found


KNOWN: dict[type[nn.Module], Callable[[Any], list[Stream]]] = {VisionTransformer: _vit, SwinTransformer: _swin}
"""Networks of timm; subclasses do more and are not among them."""
