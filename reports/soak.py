"""A soak ready for a page: its facts in words, and latency over time as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsedge.data.metrics.table import title_of
from rsedge.devices.measure.soak import Percentile, Soak
from rsedge.reports import figures
from rsedge.reports.tables import Cell, Column, Table

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class SoakView:
    """One soak: (name, value) facts, its percentiles with their bounds, the picture, what a reader must know."""

    record: Soak
    facts: list[tuple[str, str]]
    percentiles: Table
    plot: Markup
    warnings: list[str]


def soak_view(record: Soak) -> SoakView:
    """What a page shows of a soak."""
    from rsedge.reports import svg_soak

    return SoakView(
        record, _facts(record), _percentiles(record),
        svg_soak.over_time(record.slices, record.seconds, record.period_ms, f"Latency of {record.target} over time"),
        _warnings(record),
    )  # fmt: skip


def page_context(record: Soak) -> dict[str, Any]:
    """What the template of a page of its own takes."""
    return {"title": record.target, "soaks": [soak_view(record)]}


def _percentiles(record: Soak) -> Table:
    rows = [[Cell(p.name), Cell(figures.milliseconds(p.ms)), Cell(_bounds(p))] for p in record.percentiles]
    columns = [Column("percentile"), Column("latency", True), Column("95 % bounds", True)]
    return Table(f"Percentiles of {record.target} under load", columns, rows)


def _bounds(one: Percentile) -> str:
    if one.low_ms is None or one.high_ms is None:
        return f"none: takes {one.needed:,} runs"
    return f"{figures.milliseconds(one.low_ms)} to {figures.milliseconds(one.high_ms)}"


def _facts(record: Soak) -> list[tuple[str, str]]:
    single, memory = record.single_stream, record.memory
    estimate = f"takes {single.needed} runs" if single.estimate_ms is None else figures.milliseconds(single.estimate_ms)
    found = [
        ("runs", f"{record.n:,} in {figures.duration(record.seconds)}"),
        ("threads", str(record.threads)),
        ("worst", f"{figures.milliseconds(record.worst_ms)} at {record.worst_at_s:.0f} s"),
        ("MLPerf single-stream, early stopping p90", estimate),
        ("memory at the end", f"{figures.size(memory.end)}, {memory.growth / 2**20:+.2f} MB since the start"),
    ]
    if record.period_ms is not None:
        found.insert(1, ("period", figures.milliseconds(record.period_ms)))
        found.insert(2, ("missed periods", f"{record.missed:,} of {record.periods:,}"))
        found.insert(3, ("busy", figures.share(record.busy)))
    if (one := record.quality) is not None:
        found.append((f"{title_of(one.metric)} of f32's", f"{one.share:.2%}".replace("%", " %")))
    return found


def _warnings(record: Soak) -> list[str]:
    found = [f"slowed down: {reason}" for reason in record.throttling.reasons]
    if record.ended_early:
        found.append(f"ended early: {record.seconds:.0f} of {record.asked_s:g} s")
    if record.same_outputs is False:
        found.append("the last run gave other numbers than the first")
    return found + ([words] if (words := record.load.words()) else [])
