"""What the loss says of each cut alone: groups cut to some of their widths, blocks skipped; everything in one currency.

Importance ranks channels inside a group. Between groups, heads and hidden units, widths and depth, it has no common unit; the loss
on a few batches has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsedge.compress.prune.depth import without
from rsedge.compress.prune.groups import ChannelGroup, remove_channels
from rsedge.compress.prune.knapsack import Widths
from rsedge.compress.prune.plan import lowest_widths
from rsedge.data.errors import RequestError

POINTS = (0.25, 0.5, 1.0)
"""Shares of what may go of a group at which its damage is measured; between them it goes with the importance that is cut."""

Loss = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Limits:
    """How far groups may go: widths before any pruning, multiples of ``round_to`` positions, a share of them in all."""

    full_width: Mapping[str, int]
    round_to: int
    max_ratio: float

    def options(self, group: ChannelGroup) -> npt.NDArray[np.int64]:
        """Root channels that may be left of a group: its present width, then multiples of its chunk, falling."""
        chunk = group.rounding(self.round_to)
        lowest = lowest_widths([group], self.round_to, self.full_width, self.max_ratio)[group.name]
        falling = range((group.channels - 1) // chunk * chunk, lowest - 1, -chunk)
        return np.array([group.channels, *falling], dtype=np.int64)


@torch.no_grad()
def damaged_groups(
    module: nn.Module, groups: Sequence[ChannelGroup], scores: Mapping[str, Tensor], limits: Limits, loss: Loss
) -> dict[str, Widths]:
    """Each group that may be cut, with the damage at each of its widths, the others as they are.

    Raises:
        RequestError: the loss of the network itself is not finite.
    """
    base, found = _finite(loss(module)), {}
    for group in groups:
        kept = limits.options(group) if not group.blocked else np.zeros(1, dtype=np.int64)
        if len(kept) == 1:
            continue
        order = torch.argsort(scores[group.name], stable=True).tolist()
        at = sorted({round(share * (len(kept) - 1)) or 1 for share in POINTS})
        measured = []
        for i in at:
            cut = _sharing_tensors(module)
            remove_channels(cut, groups, {group.name: order[: group.channels - int(kept[i])]})
            measured.append(_damage(loss(cut), base))
        found[group.name] = Widths(kept, _between(kept, at, measured, scores[group.name].double().numpy()))
    return found


@torch.no_grad()
def damaged_blocks(module: nn.Module, blocks: Sequence[str], loss: Loss) -> dict[str, float]:
    """Block -> what skipping it alone costs."""
    base, found = _finite(loss(module)), {}
    for name in blocks:
        with without(module, name) as skipped:
            found[name] = _damage(loss(skipped), base)
    return found


def _sharing_tensors(module: nn.Module) -> nn.Module:
    """A copy whose tensors are the module's own: a cut puts new ones in their place, and copying all of them takes longer."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _finite(base: float) -> float:
    if not np.isfinite(base):
        raise RequestError("prune: the loss of the network is not finite before any cut; check the training views")
    return base


def _damage(loss: float, base: float) -> float:
    """A cut that helps on these batches costs nothing; one that breaks the network costs more than any other."""
    return max(0.0, loss - base) if np.isfinite(loss) else 1e9


def _between(
    kept: npt.NDArray[np.int64], at: list[int], measured: list[float], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Damage at every width: it goes from point to point with the importance of the channels cut so far, and never falls."""
    cut = np.concatenate([[0.0], np.cumsum(np.sort(scores))])
    even = np.arange(len(cut)) / len(cut)
    gone = (
        cut / cut[-1] if cut[-1] > 0 else even
    ) + 1e-6 * even  # strictly rising, also over channels of no importance
    importance = gone[kept[0] - kept]
    return np.interp(importance, importance[[0, *at]], np.maximum.accumulate([0.0, *measured]))
