"""Runs set against the first as tables, for the terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsedge.data.metrics.verdict import statement
from rsedge.reports import figures as f
from rsedge.reports.compare import Change, Comparison, gate_text
from rsedge.reports.schema import Report

Runs = list[tuple[str, Report, Comparison]]
"""Name, report, and how it stands to the first run."""
TWO_RUNS = "Latency, throughput and memory of two runs were not taken in turns: a difference of some percent may be the machine's."


@dataclass(frozen=True)
class TargetTables:
    """One target: rows of texts for figures and for gates, a column a run."""

    target: str
    head: list[str]
    figures: list[list[str]]
    gate_head: list[str]
    gates: list[list[str]]


def tables(found: Runs) -> list[TargetTables]:
    """Targets in the order in which the runs name them; runs are numbered from 1, the first."""
    numbers = [str(number) for number in range(1, len(found) + 2)]
    names = list(dict.fromkeys(name for _, _, one in found for name in one.targets))
    return [
        TargetTables(
            name, ["figure", "better", *numbers], _figures(name, found), ["gate", *numbers], _gates(name, found)
        )
        for name in names
    ]


def _figures(target: str, found: Runs) -> list[list[str]]:
    rows = [{c.figure: c for c in one.changes if c.target == target} for _, _, one in found]
    made = []
    for name in dict.fromkeys(name for row in rows for name in row):
        changes = [row.get(name) for row in rows]
        some = next(c for c in changes if c is not None)
        before = next((c.before for c in changes if c is not None and c.before is not None), None)
        first = f.DASH if before is None else before.text(name)
        made.append([f.label(name), "higher" if some.higher else "lower", first, *map(_after, changes)])
    return made


def _after(change: Change | None) -> str:
    if change is None:
        return f.DASH
    if change.after is None:
        return change.text
    mark = "; WORSE beyond its interval" if change.regression else ""
    return f"{change.after.text(change.figure)}; {change.text}{mark}"


def _gates(target: str, found: Runs) -> list[list[str]]:
    rows = [{g.gate.name: g for g in one.gates if g.target == target} for _, _, one in found]
    made = []
    for name in dict.fromkeys(name for row in rows for name in row):
        some = next(row[name] for row in rows if name in row)
        after = [gate_text(row[name].after if name in row else None) for row in rows]
        made.append([statement(some.gate), gate_text(some.before), *after])
    return made


def run_line(path: str, report: Report) -> str:
    """A run in a line: where it is, what made it, and its verdict."""
    made = f"{report.name}, {report.created}, rsedge {report.rsedge_version or 'of unknown version'}"
    return f"{path} ({made}): {report.headline}"


def latencies_compared(found: Runs) -> bool:
    return any(c.figure == "latency" and c.comparable for _, _, one in found for c in one.changes)


def page_context(first: tuple[str, Report], found: Runs) -> dict[str, Any]:
    """What the template takes."""
    return {
        "title": first[1].name,
        "runs": [run_line(*first), *(run_line(path, report) for path, report, _ in found)],
        "differences": [(number, text) for number, (_, _, one) in enumerate(found, 2) for text in one.differences],
        "regressions": [(number, text) for number, (_, _, one) in enumerate(found, 2) for text in one.regressions],
        "targets": tables(found),
        "note": TWO_RUNS if latencies_compared(found) else None,
    }
