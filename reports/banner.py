"""What a reader must see first: the verdict, every gate that is not passed, and what became of each target."""

from __future__ import annotations

from dataclasses import dataclass

from rsedge.reports import view
from rsedge.reports.schema import Report, TargetRecord
from rsedge.reports.tables import Cell, Column, Table
from rsedge.reports.texts import caution


@dataclass(frozen=True)
class Banner:
    """The outcome with its sentence, the gates that failed, were not taken or are undecided, and the targets' fates."""

    outcome: str
    headline: str
    summary: str
    strict: bool
    gates: Table | None
    fates: Table


def banner(report: Report) -> Banner:
    """The top of the page."""
    missed = [g for g in report.judged.gates if g.outcome != "passed"]
    gates = view.gate_table(report, missed, "Gates that are not passed", targets=True) if missed else None
    return Banner(
        report.judged.outcome, report.judged.headline, view.summary(report), report.strict, gates, _fates(report)
    )


def _fates(report: Report) -> Table:
    columns = [Column("target"), Column("outcome"), Column("latency"), Column("figure"), Column("why")]
    rows = [
        [Cell(t.name), Cell(t.judged.word, badge=True), Cell(t.provenance, badge=True), Cell(view.headline(report, t)),
         Cell(_why(t))]
        for t in report.targets
    ]  # fmt: skip
    return Table("What became of each target", columns, rows)


def _why(target: TargetRecord) -> str:
    """What the figure rests on, or why there is none."""
    if target.interval is not None:
        return target.interval.basis
    if target.latency_ms is None:
        return target.reason or ""
    m = target.measurement
    runs = f"{m.n:,} runs on {m.device}, {m.runtime} {m.runtime_version}" if m is not None else f"on {target.device}"
    return "; ".join(filter(None, (runs, caution(target))))
