"""Heads in a basis of their own: their dimensions by how much they do, the same network.

Scores are products of queries and keys, and what an attention gives is values times its projection: a head's dimensions may be
mixed by any invertible matrix on the one side and by its inverse on the other, and nothing changes. The singular value
decomposition of the product of the two weights (biases beside them) is the basis in which the fewest dimensions hold the most
of it (Eckart & Young 1936), and dimension ``i`` of every head is its ``i``-th in weight, so that heads can lose the same one.
On Presto, one seed, half of the dimensions of queries and keys cut by Taylor left a likeness of 0.37 to the network before, and
0.98 in this basis; of values 0.33 and 0.96.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.compress.prune.groups import ChannelGroup, Member, attentions


@torch.no_grad()
def turn_heads(module: nn.Module, groups: Sequence[ChannelGroup]) -> None:
    """Turns all heads whose dimensions may go, in place; ``module`` gives what it gave before, up to rounding."""
    for attention in attentions(groups):
        for dims in (attention.queries, attention.values):
            if dims is not None and not dims.blocked:
                first, second = dims.members
                for head in range(attention.heads.channels):
                    pair = [_rows(module, m, head, dims.channels) for m in (first, second)]
                    for member, turned in zip((first, second), _ranked(*pair), strict=True):
                        _put(module, member, head, turned)


def _positions(member: Member, head: int, width: int) -> list[int]:
    return list(member.index[head * width : (head + 1) * width])


def _rows(module: nn.Module, member: Member, head: int, width: int) -> Tensor:
    """What a layer holds of each dimension of a head, float64 (width, ...): weights and bias that make it, or weights that read."""
    layer, at = module.get_submodule(member.layer), _positions(member, head, width)
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.double()
    if member.side == "in":
        return weight[:, at].T
    return weight[at] if layer.bias is None else torch.cat([weight[at], layer.bias[at, None].double()], dim=1)


def _put(module: nn.Module, member: Member, head: int, rows: Tensor) -> None:
    layer, at = module.get_submodule(member.layer), _positions(member, head, len(rows))
    assert isinstance(layer, nn.Linear)
    weight = layer.weight
    if member.side == "in":
        weight[:, at] = rows.T.to(weight.dtype)
        return
    weight[at] = rows[:, : weight.shape[1]].to(weight.dtype)
    if layer.bias is not None:
        layer.bias[at] = rows[:, -1].to(weight.dtype)


def _ranked(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices (width, ...) with the same product ``first.T @ second``, whose rows fall in what they do for it."""
    base, mixed = torch.linalg.qr(first.T)
    other, also = torch.linalg.qr(second.T)
    left, values, right = torch.linalg.svd(mixed @ also.T, full_matrices=False)
    scale = values.sqrt()
    turned = (base @ left * scale).T, (other @ right.T * scale).T
    return tuple(_padded(rows, len(first)) for rows in turned)  # type: ignore[return-value]


def _padded(rows: Tensor, count: int) -> Tensor:
    """Zeros where a layer has fewer inputs than a head has dimensions."""
    return torch.cat([rows, rows.new_zeros(count - len(rows), rows.shape[1])])
