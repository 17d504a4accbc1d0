"""The channel groups of a network: block by block where attention is in it, else as its graph has them."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from torch import nn

from rsedge.compress.prune.blocks import block_groups, pruned_by_block
from rsedge.compress.prune.groups import KINDS, ChannelGroup, Example, is_attention_network, traced_groups
from rsedge.compress.prune.widths import width_groups
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.models.structure import remove_blocks


def find_groups(
    module: nn.Module, example: Example, ignored: Iterable[str] = (), kinds: Container[str] = KINDS
) -> list[ChannelGroup]:
    """All channel groups of ``module``, in a fixed order.

    A module whose last layers are followed by arithmetic has a method ``undecoded``: their outputs, for the same inputs.

    Args:
        example: the input or inputs of a forward pass, on the module's device.
        ignored: layers, or folders of layers, whose output channels stay (their inputs may shrink).
        kinds: groups of other kinds are blocked.

    Raises:
        RequestError: ``ignored`` names no layer, or the network cannot be traced.
    """
    keep = kept_layers(module, ignored)
    if _by_block(module):
        found = [*block_groups(module, keep), *width_groups(module, keep)]
    else:
        found = traced_groups(module, example, keep)
    return [g if g.blocked or g.kind in kinds else replace(g, blocked=f"kinds has no {g.kind}") for g in found]


def _by_block(module: nn.Module) -> bool:
    return pruned_by_block(module) or is_attention_network(module)


def removable_together(module: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Those of some blocks that may all go: what is left has groups of the same kind, so of attention at least one block stays."""
    for stays in (None, *blocks):
        left, smallest = [b for b in blocks if b != stays], copy.deepcopy(module)
        remove_blocks(smallest, left)
        if _by_block(smallest) == _by_block(module):
            return left
    return []


def kept_layers(module: nn.Module, ignored: Iterable[str]) -> set[str]:
    """Names of the layers, and of those inside, that ``ignored`` names.

    Raises:
        RequestError: one names no layer.
    """
    names = [n for n, _ in module.named_modules() if n]
    keep = set()
    for wanted in ignored:
        hits = {n for n in names if n == wanted or n.startswith(wanted + ".")}
        if not hits:
            raise RequestError(f"prune.ignored: the model has no layer '{wanted}'{nearest(wanted, names)}")
        keep |= hits
    return keep
