"""Batch norms take their statistics again after a cut: the means and deviations they keep are those of the network before it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_BatchNorm = nn.modules.batchnorm._NormBase


@torch.no_grad()
def retake_statistics(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Sets the statistics of every batch norm that keeps some to the mean over ``batches``, in place; nothing else changes.

    Args:
        batches: inputs of the network, normalised, on its device; at least one.

    Returns:
        How many batch norms there are.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    modes, momenta = {m: m.training for m in module.modules()}, {m: m.momentum for m in norms}
    try:
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # the plain mean over batches
        for x in batches:
            module(x)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for part, mode in modes.items():
            part.training = mode
    return len(norms)
