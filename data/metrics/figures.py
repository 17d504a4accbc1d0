"""All figures that the table of metrics has for what a network is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Statistic
from rsedge.data.metrics.table import METRICS

ELSEWHERE = "agreement"
"""Records have a field of its own for it."""


def statistics_of(*comparisons: Comparison) -> dict[str, Statistic]:
    """What each metric is worked out from, by its name, in the order of the table."""
    by_kind = {one.kind: one for one in comparisons}
    return {
        name: row.statistic(by_kind[kind]) for name, row in METRICS.items() for kind in row.computed if kind in by_kind
    }


def record_of(*comparisons: Comparison) -> dict[str, Any]:
    """The metrics record of ``report.json`` and of ``rsedge evaluate``: figures, None where one is not defined, and details."""
    figures = {name: found.value for name, found in statistics_of(*comparisons).items() if name != ELSEWHERE}
    details: Mapping[str, Any] = {key: value for one in comparisons for key, value in one.details.items()}
    return {**figures, **details}
