"""How much each channel of a group matters: one score per root channel, summed over all coupled layers.

- ``magnitude``: L2 norm of all weights that make or read the channel (Li et al. 2017, grouped as in DepGraph).
- ``taylor``: the first-order change of the loss when the channel goes, ``sum w * dL/dw`` over all of it in one layer (a head of 64
  rows in queries, keys and values alike), squared (Molchanov et al. 2019); mean over the layers of the group, as torch-pruning's
  ``group_reduction="mean"``, and over batches. The loss is the caller's, here the distillation loss.
- ``bn-scale``: mean absolute scale of the batch norms on the channel (Liu et al. 2017, "network slimming"); groups
  without one fall back on ``magnitude``.
- ``lamp``: squared norm over the squared norms of all channels at least as large (Lee et al. 2021).
- ``random``: the baseline that every criterion has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from rsedge.compress.prune.groups import ChannelGroup, Member
from rsedge.data.errors import RequestError

Importance = Literal["magnitude", "taylor", "bn-scale", "lamp", "random"]
Gradients = Callable[[nn.Module, int], None]
"""``(module, batch number)``: runs forward and backward of the loss on that batch, so that ``.grad`` is filled."""

_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._NormBase
_NO_LAYER = ("param", "heads")


def channel_scores(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    importance: Importance,
    *,
    seed: int = 0,
    gradients: Gradients | None = None,
    batches: int = 8,
) -> dict[str, Tensor]:
    """Scores per group name, float64 on the CPU, shape (channels,); higher matters more. Blocked groups have none.

    Scores are comparable between groups: Taylor scores by nature, the others divided by their group's mean (LAMP by its
    own rule).

    Raises:
        RequestError: ``taylor`` without ``gradients``, or the callback left no gradient.
    """
    free = [g for g in groups if not g.blocked]
    if importance == "random":
        generator = torch.Generator().manual_seed(seed)
        return {g.name: torch.rand(g.channels, generator=generator, dtype=torch.float64) for g in free}
    if importance == "taylor":
        if gradients is None:
            raise RequestError("prune.importance: 'taylor' needs gradients of the distillation loss")
        return _taylor(module, free, gradients, batches)
    return {g.name: _weight_score(module, g, importance) for g in free}


def _weight_score(module: nn.Module, group: ChannelGroup, importance: Importance) -> Tensor:
    if importance == "bn-scale":
        scale = _bn_scale(module, group)
        if scale is not None:
            return _per_mean(scale)
    squares = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.members:
        layer = module.get_submodule(member.layer) if member.side not in _NO_LAYER else None
        if isinstance(layer, _Conv | nn.Linear):
            weight = layer.weight.detach().double().cpu()
            squares.index_add_(0, torch.tensor(member.root), _per_channel(weight.square(), layer, member))
    if importance == "lamp":
        return _lamp(squares)
    return _per_mean(squares.sqrt())


def _per_mean(score: Tensor) -> Tensor:
    mean = float(score.mean())
    return score / mean if mean > 0 else score


def _lamp(squares: Tensor) -> Tensor:
    order = torch.argsort(squares, stable=True)
    at_least = squares[order].flip(0).cumsum(0).flip(0)
    out = torch.empty_like(squares)
    out[order] = squares[order] / at_least.clamp_min(torch.finfo(torch.float64).tiny)
    return out


def _bn_scale(module: nn.Module, group: ChannelGroup) -> Tensor | None:
    total, norms = torch.zeros(group.channels, dtype=torch.float64), 0
    for member in group.members:
        layer = module.get_submodule(member.layer) if member.side == "both" else None
        if isinstance(layer, _BatchNorm) and layer.weight is not None:
            scale = layer.weight.detach().double().abs().cpu()
            total.index_add_(0, torch.tensor(member.root), scale[torch.tensor(member.index)])
            norms += 1
    return total / norms if norms else None


def _per_channel(values: Tensor, layer: nn.Module, member: Member) -> Tensor:
    """``values`` of a weight's shape, summed per channel of the member's side and picked in the member's order."""
    transposed = isinstance(layer, _Conv) and layer.transposed
    dim = 0 if member.side == "both" else int((member.side == "in") != transposed)
    flat = values.transpose(0, dim).flatten(1).sum(1) if values.ndim > 1 else values
    return flat[torch.tensor(member.index)]


def _taylor(module: nn.Module, groups: Sequence[ChannelGroup], gradients: Gradients, batches: int) -> dict[str, Tensor]:
    scores = {g.name: torch.zeros(g.channels, dtype=torch.float64) for g in groups}
    for batch in range(batches):
        module.zero_grad(set_to_none=True)
        gradients(module, batch)
        if all(p.grad is None for p in module.parameters()):
            raise RequestError("prune.importance: the gradients callback left no gradient on the module")
        for group in groups:
            changes = first_order_changes(module, group)
            if len(changes):
                scores[group.name] += changes.square().mean(0) / batches
    module.zero_grad(set_to_none=True)
    return scores


def first_order_changes(module: nn.Module, group: ChannelGroup) -> Tensor:
    """``sum w * dL/dw`` of each root channel in each layer of the group that has a gradient: (layers, channels), float64."""
    rows = [torch.zeros(0, group.channels, dtype=torch.float64)]
    for member in group.members:
        layer = module.get_submodule(member.layer) if member.side not in _NO_LAYER else None
        change = None if layer is None else _change(layer.weight)
        if layer is None or change is None:
            continue
        per_position = _per_channel(change, layer, member)
        bias = _change(getattr(layer, "bias", None)) if member.side != "in" else None
        if bias is not None:
            per_position = per_position + bias[torch.tensor(member.index)]
        rows.append(torch.zeros(1, group.channels, dtype=torch.float64))
        rows[-1][0].index_add_(0, torch.tensor(member.root), per_position)
    return torch.cat(rows)


def _change(weight: object) -> Tensor | None:
    """``w * dL/dw``, None where there is no gradient."""
    if not isinstance(weight, nn.Parameter) or weight.grad is None:
        return None
    return (weight.detach().double() * weight.grad.double()).cpu()
