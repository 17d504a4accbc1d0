"""What a report says of stages: what they tried, what rounding each layer does, and what changed; no HTML here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsedge.reports import figures as f
from rsedge.reports.schema import LayerDamage, Report, StageRecord
from rsedge.reports.tables import Cell, Column, Table
from rsedge.reports.texts import Texts, number

WORST = 12
"""Layers shown of those whose damage is known."""


def figure(report: Report, name: str, value: Any) -> str:
    """Any figure of a stage or a table, by its name; metrics as everywhere in the report."""
    texts, known = Texts.of(report), number(value)
    return texts.metric(name, known) if name in texts.decimals and known is not None else f.figure(name, value)


def details(report: Report, stage: StageRecord) -> Table | None:
    """A stage's own table, columns in order of first appearance."""
    names = list(dict.fromkeys(key for row in stage.details for key in row))
    columns = [Column(f.label(n), i > 0 and _numeric(stage, n)) for i, n in enumerate(names)]
    rows = [[Cell(figure(report, c, row.get(c))) for c in names] for row in stage.details]
    return Table(f"{stage.name}: what was tried", columns, rows) if rows else None


@dataclass(frozen=True)
class Damage:
    """Layers of a stage by falling damage: each with its share of the worst, and what is left out."""

    rows: list[tuple[LayerDamage, float]]
    rest: str


def damage(stage: StageRecord) -> Damage:
    """The worst layers of a stage."""
    worst = sorted(stage.damage, key=lambda layer: -layer.damage)
    largest = worst[0].damage if worst else 0.0
    rows = [(layer, layer.damage / largest if largest else 0.0) for layer in worst[:WORST]]
    left = worst[WORST:]
    return Damage(rows, f"the other {len(left)}: {left[0].damage:.4f} and less" if left else "")


def widths(stage: StageRecord) -> Table | None:
    """Layers whose width a stage changed."""
    rows = [
        [Cell(one.layer), *(Cell(f.DASH if v is None else f"{v:,}") for v in (one.before, one.after))]
        for one in stage.widths
        if one.before != one.after
    ]
    columns = [Column("layer"), Column("width before", True), Column("width after", True)]
    return Table(f"{stage.name}: layers that changed", columns, rows) if rows else None


def _numeric(stage: StageRecord, name: str) -> bool:
    """Whether a column of a stage's table holds figures."""
    return all(row.get(name) is None or number(row.get(name)) is not None for row in stage.details)


def steps(report: Report) -> Table:
    """Every stage: outcome, time, what changed and why."""
    columns = [
        Column("step"),
        Column("outcome"),
        Column("time", True),
        Column("memory", True),
        Column("what changed"),
        Column("why"),
    ]
    rows = [
        [Cell(s.name), Cell(s.outcome, badge=True), Cell(f.duration(s.seconds)), Cell(f.size(s.memory_bytes)),
         Cell("", tuple(changes(report, s))), Cell(s.reason or "")]
        for s in report.stages
    ]  # fmt: skip
    return Table("What every stage did", columns, rows)


def changes(report: Report, stage: StageRecord) -> list[str]:
    """Each figure on either side of a stage, in words; a latency with the word for where it is from."""
    found = []
    for name in dict.fromkeys([*stage.before, *stage.after]):
        if name == "provenance":
            continue
        before, after = stage.before.get(name), stage.after.get(name)
        word = f"{stage.after.get('provenance') or ''} " if name == "latency_ms" else ""
        arrow = f"{figure(report, name, before)} → " if before is not None else ""
        found.append(f"{word}{f.label(name)} {arrow}{figure(report, name, after)}".strip())
    return found
