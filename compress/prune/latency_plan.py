"""A pruning step towards a latency: the table of layers, the damage of each cut, and the knapsack between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsedge.compress.prune.damage import Limits, Loss, damaged_blocks, damaged_groups
from rsedge.compress.prune.groups import ChannelGroup, Removal
from rsedge.compress.prune.knapsack import Block, Knapsack
from rsedge.compress.prune.layer_times import LatencyTable


def least_ms(table: LatencyTable, groups: Sequence[ChannelGroup], blocks: Sequence[str], limits: Limits) -> float:
    """What is left of a network where everything that may go is gone."""
    return table.total({g.name: int(limits.options(g)[-1]) for g in groups if not g.blocked}, blocks)


def plan_by_latency(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    blocks: Sequence[str],
    table: LatencyTable,
    limits: Limits,
    loss: Loss,
    budget_ms: float,
) -> tuple[Removal, list[str]]:
    """Channels of each group and whole blocks to remove, so that ``module`` takes ``budget_ms`` by the table at the least damage.

    Args:
        scores: importance of channels, by which a group's go first.
        blocks: those that may go.
        budget_ms: at least what :func:`least_ms` says.
    """
    widths = damaged_groups(module, groups, scores, limits, loss)
    damage = damaged_blocks(module, blocks, loss)
    inside = {b: frozenset(g.name for g in groups if g.name in widths and _lies_in(g, b)) for b in blocks}
    knapsack = Knapsack(widths, {b: Block(damage[b], inside[b]) for b in blocks}, table)
    plan = knapsack.solve(budget_ms)
    removal: Removal = {}
    for name, kept in knapsack.kept(plan).items():
        order = torch.argsort(scores[name], stable=True).tolist()
        if kept < len(order):
            removal[name] = sorted(order[: len(order) - kept])
    return removal, [b for b in blocks if b in plan.removed]


def _lies_in(group: ChannelGroup, block: str) -> bool:
    return all(m.layer.startswith(f"{block}.") for m in group.members)
