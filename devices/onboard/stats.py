"""Distributions of latencies and sensor readings, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NOISY_RATIO = 1.5
"""p90/p50 above this marks a measurement as noisy: something else used the machine, or it throttled."""
DRIFT_RATIO = 1.15
"""Last quarter against first quarter of the runs: above this the device slowed down while it was measured."""
MAX_SAMPLES = 400


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0..1) of the values lie, with linear interpolation between neighbours.

    Raises:
        ValueError: no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latency(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and mean (ms)."""
    found = {f"p{round(100 * s)}": percentile(samples_ms, s) for s in (0.5, 0.9, 0.99)}
    found["mean"] = math.fsum(samples_ms) / len(samples_ms)
    return found


def quarters(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and of the last quarter, at least one value each."""
    part = max(1, len(values) // 4)
    return percentile(values[:part], 0.5), percentile(values[-part:], 0.5)


def summary(samples_ms: Sequence[float]) -> dict[str, Any]:
    """What a record says of a row of latencies: distribution, noise, drift and samples evenly drawn in time."""
    found = latency(samples_ms)
    first, last = quarters(samples_ms)
    count = min(MAX_SAMPLES, len(samples_ms))
    step = (len(samples_ms) - 1) / max(1, count - 1)
    return {
        "n": len(samples_ms),
        "latency_ms": found,
        "noisy": found["p90"] > NOISY_RATIO * found["p50"],
        "drift": last / first if first else 1.0,
        "samples_ms": [round(samples_ms[round(i * step)], 4) for i in range(count)],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, mean and largest of some readings."""
    return {"min": min(values), "mean": math.fsum(values) / len(values), "max": max(values)}
