"""Percentiles of a long row of latencies with bounds that assume no distribution, and MLPerf's early stopping estimate.

How many of n independent latencies lie below their true p-quantile is binomial (n, p). So two of the sorted latencies, picked by
quantiles of that binomial, hold the true value between them with the confidence asked for (W. J. Conover, Practical Nonparametric
Statistics, 3.2). Of a percentile far out there is no upper bound before enough runs: then there is None, and how many it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
EARLY_STOPPING_CONFIDENCE = 0.99
"""That of MLPerf inference (mlcommons/inference, loadgen/results.cc: PerformanceSummary::EarlyStopping, tolerance 0)."""


@dataclass(frozen=True)
class Bounded:
    """A percentile of latencies and what it lies between; None: so few runs cannot tell."""

    value: float
    low: float | None
    high: float | None
    needed: int
    """Runs from which on there are both bounds."""


@dataclass(frozen=True)
class EarlyStopping:
    """An estimate that the true percentile does not exceed, with the confidence; None before ``needed`` runs."""

    value: float | None
    discarded: int
    """Of the largest latencies, left out above it."""
    needed: int


def binomial_quantile(n: int, p: float, share: float) -> int:
    """The least k with P(X <= k) >= ``share`` for X binomial (n, p); 0 < p < 1.

    Summed from far below the mean upwards; what lies further down is under 1e-12.
    """
    mean, spread = n * p, math.sqrt(n * p * (1 - p))
    k = max(0, math.floor(mean - 8 * spread - 8))
    odds = math.log(p) - math.log1p(-p)
    log_mass = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    total = math.exp(log_mass)
    while total < share and k < n:
        log_mass += math.log(n - k) - math.log(k + 1) + odds
        k += 1
        total += math.exp(log_mass)
    return k


def runs_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """Runs from which on the least and the largest latency bound the p-quantile."""
    tail = (1 - confidence) / 2
    return max(math.ceil(math.log(tail) / math.log(p)), math.ceil(math.log(tail) / math.log1p(-p)))


def bounded(ordered: Sequence[float], p: float, confidence: float = CONFIDENCE) -> Bounded:
    """The p-quantile of sorted latencies (the least that a share of p does not exceed) with its bounds.

    Raises:
        ValueError: no latencies.
    """
    if not len(ordered):
        raise ValueError("a percentile needs at least one latency")
    n, tail = len(ordered), (1 - confidence) / 2
    # Of the latencies counted from 0: one more than so many below is needed to be above it, and so many to be below.
    low, high = binomial_quantile(n, p, tail) - 1, binomial_quantile(n, p, 1 - tail)
    value = ordered[min(n - 1, math.ceil(n * p) - 1)]
    found = (float(ordered[low]) if low >= 0 else None, float(ordered[high]) if high < n else None)
    return Bounded(float(value), *found, runs_needed(p, confidence))


def early_stopping(
    ordered: Sequence[float], p: float = 0.9, confidence: float = EARLY_STOPPING_CONFIDENCE
) -> EarlyStopping:
    """MLPerf's single-stream estimate of the p-quantile of sorted latencies.

    With t the largest number for which P(X <= t) < 1 - confidence, X binomial (n, 1 - p), it is the t-th largest latency: were
    the true quantile above it, so few latencies over it would be that unlikely. There is none before t is 1: 64 runs for p90,
    662 for p99.
    """
    n, needed = len(ordered), _first_run_count(p, confidence)
    if n < needed:
        return EarlyStopping(None, 0, needed)
    t = binomial_quantile(n, 1 - p, 1 - confidence) - 1
    return EarlyStopping(float(ordered[n - t]), t - 1, needed)


def _first_run_count(p: float, confidence: float) -> int:
    """The least n for which one latency above the quantile is too few."""
    n = 2
    while p**n + n * (1 - p) * p ** (n - 1) >= 1 - confidence:
        n += 1
    return n
