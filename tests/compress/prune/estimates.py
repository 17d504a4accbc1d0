"""What pruning is told where latencies are known exactly."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio


def by_estimates(latency: Callable[[nn.Module], LatencyEstimate]) -> Callable[[nn.Module, nn.Module], LatencyRatio]:
    """A comparison from two estimates, for those that have no noise, as predictions."""

    def compare(before: nn.Module, candidate: nn.Module) -> LatencyRatio:
        first, second = latency(before), latency(candidate)
        value = second.ms / first.ms
        return LatencyRatio(value=value, low=value, high=value, planned=value, provenance=second.provenance)

    return compare
