"""From the report record to the rows, cards and plots that the page shows; no HTML here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsedge.data.metrics.table import headline_order, step_scores, title_of
from rsedge.devices.measure.protocol import LatencyMs
from rsedge.devices.mission.budget import Amount, Budget, amount_text
from rsedge.reports import figures as f
from rsedge.reports.schema import BaselineRecord, LayerDamage, Report, StageRecord, TargetRecord
from rsedge.reports.svg import Point

Artefact = TargetRecord | BaselineRecord


@dataclass(frozen=True)
class Row:
    """One row of the comparison table; every cell is text already."""

    name: str
    role: str
    state: str = ""
    note: str = ""
    key: str = ""
    cells: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """One target's verdict with its figures."""

    target: TargetRecord
    verdict: str
    headline: str
    facts: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: per cell (share of its row as text, count as text, share 0..1)."""

    name: str
    rows: list[tuple[str, list[tuple[str, str, float]], str]]
    summary: str


WORST = 12
"""Layers shown of those whose damage is known."""
COLUMNS = ("p50", "p90", "p99", "speed-up", "metric", "vs teacher", "agreement", "size", "memory", "params", "MACs")


def metric_name(report: Report) -> str:
    """The accuracy figure this report compares by: the first of the table of metrics that the teacher or a
    target has; otherwise agreement with the teacher."""
    for name in headline_order():
        if any(number(m.get(name)) is not None for m in [report.teacher.metrics, *(t.metrics for t in report.targets)]):
            return name
    return "agreement"


def reference(report: Report) -> tuple[str, str, LatencyMs] | None:
    """(name, device, latency) of what speed-ups are against: the teacher on OpenVINO f32, or as it was given."""
    for row in report.baselines:
        if row.precision == "f32" and row.latency_ms is not None:
            return row.name, row.device, row.latency_ms
    if report.teacher.latency_ms is not None:
        return "teacher", "cpu", report.teacher.latency_ms
    return None


def speedup(report: Report, row: Artefact) -> float | None:
    """How many times faster than the reference, by p50 on the same device; None across devices or when predicted."""
    base = reference(report)
    if base is None or row.latency_ms is None or row.device != base[1]:
        return None
    gates = row.gates if isinstance(row, TargetRecord) else []
    gate = next((g for g in gates if g.constraint == "min_speedup" and g.over == base[0] and g.value), None)
    return gate.value if gate is not None else base[2].p50 / row.latency_ms.p50


def table(report: Report) -> list[Row]:
    """Teacher, baselines, one row per compression step, and the targets."""
    name = metric_name(report)
    teacher_score = number(report.teacher.metrics.get(name))
    rows = [_teacher_row(report, name)]
    rows += [_artefact_row(report, b, "baseline", name, teacher_score) for b in report.baselines]
    rows += [_stage_row(s, name, teacher_score) for s in report.stages if has_figures(s)]
    rows += [_artefact_row(report, t, "target", name, teacher_score) for t in report.targets]
    keys = _keys(report)
    return [Row(r.name, r.role, r.state, r.note, keys.get((r.role, r.name), ""), r.cells) for r in rows]


def has_figures(stage: StageRecord) -> bool:
    """True for a compression step: it has figures of the student after it, or was rejected or skipped as one."""
    known = {"params", "macs", "size_bytes", "latency_ms", "agreement", *step_scores()}
    return bool(known & (set(stage.after) | set(stage.before)))


def _keys(report: Report) -> dict[tuple[str, str], str]:
    """The letter or number an artefact has in the plot."""
    keys = {("teacher", report.teacher.name): "T"}
    keys |= {("baseline", b.name): f"B{i}" for i, b in enumerate(report.baselines, 1)}
    return keys | {("target", t.name): str(i) for i, t in enumerate(report.targets, 1)}


def _teacher_row(report: Report, name: str) -> Row:
    t = report.teacher
    cells = _latency_cells(t.latency_ms) | {
        "metric": f.score(number(t.metrics.get(name))),
        "params": f.count(t.params),
        "MACs": f.count(t.macs),
        "size": f.size(t.size_bytes),
    }
    return Row(t.name, "teacher", cells=cells)


def _artefact_row(report: Report, row: Artefact, role: str, name: str, teacher: float | None) -> Row:
    value = number(row.metrics.get(name)) if name != "agreement" else row.agreement
    cells = _latency_cells(row.latency_ms) | {
        "speed-up": f.times(speedup(report, row)),
        "metric": f.score(value),
        "vs teacher": f.signed(value - teacher) if value is not None and teacher is not None else f.DASH,
        "agreement": f.share(row.agreement),
        "size": f.size(row.size_bytes),
        "memory": f.size(row.peak_rss_bytes),
    }
    if isinstance(row, TargetRecord):
        cells |= {"params": f.count(row.params), "MACs": f.count(row.macs)}
    if row.interval is not None:
        cells |= {"p50": interval_text(row)}
    state = "" if isinstance(row, BaselineRecord) else row.judged.word
    return Row(row.name, role, state, row.reason or "", cells=cells)


def interval_text(row: Artefact) -> str:
    """A predicted latency in words, never a bare number."""
    if row.interval is None:
        return f.DASH
    low, high = f.significant(row.interval.low_ms), f.significant(row.interval.high_ms)
    return f"predicted {low} to {high} ms"


def _stage_row(stage: StageRecord, name: str, teacher: float | None) -> Row:
    after = stage.after if stage.outcome == "applied" else (stage.after or stage.before)
    value = number(after.get(name))
    latency = number(after.get("latency_ms"))
    cells = {
        "p50": f.milliseconds(latency),
        "metric": f.score(value),
        "vs teacher": f.signed(value - teacher) if value is not None and teacher is not None else f.DASH,
        "agreement": f.share(number(after.get("agreement"))),
        "params": f.count(number(after.get("params"))),
        "MACs": f.count(number(after.get("macs"))),
        "size": f.size(number(after.get("size_bytes"))),
    }
    if after.get("provenance") == "predicted" and latency is not None:
        cells["p50"] = f"predicted {f.milliseconds(latency)}"
    return Row(stage.name, "step", stage.outcome, stage.reason or "", cells=cells)


def _latency_cells(latency: LatencyMs | None) -> dict[str, str]:
    if latency is None:
        return {}
    return {q: f.milliseconds(getattr(latency, q)) for q in ("p50", "p90", "p99")}


def cards(report: Report) -> list[Card]:
    """One per target, in the order of the report."""
    return [Card(t, t.judged.word, _headline(report, t), _facts(report, t)) for t in report.targets]


def _each(target: TargetRecord) -> str:
    """What one run takes: of networks of several parts a sample."""
    return "sample" if target.parts else "tile"


def _pace(target: TargetRecord) -> str:
    """How a throughput was taken."""
    piped = target.measurement is None or target.measurement.throughput_method == "stream"
    return f"{_each(target)}s, {'pipelined' if piped else 'one after the other'}"


def _headline(report: Report, target: TargetRecord) -> str:
    if target.interval is not None:
        return interval_text(target)
    if target.latency_ms is None:
        return "latency unavailable"
    factor = speedup(report, target)
    return f"{f.times(factor)} faster" if factor is not None else f.milliseconds(target.latency_ms.p50)


def _facts(report: Report, t: TargetRecord) -> list[tuple[str, str, str]]:
    """(label, value, note) triples of a card."""
    name = metric_name(report)
    value, teacher = number(t.metrics.get(name)), number(report.teacher.metrics.get(name))
    facts = []
    if t.latency_ms is not None:
        tail = f"p90 {f.milliseconds(t.latency_ms.p90)} · p99 {f.milliseconds(t.latency_ms.p99)}"
        facts.append(("latency p50", f.milliseconds(t.latency_ms.p50), tail))
    if t.interval is not None:
        facts.append(("middle of the interval", f"predicted {f.milliseconds(t.interval.mid_ms)}", ""))
    if value is not None:
        note = (
            f"teacher {f.score(teacher)} ({f.signed(value - teacher)}{_spread(t, name)})" if teacher is not None else ""
        )
        facts.append((title_of(name), f.score(value), note))
    if t.agreement is not None:
        facts.append(("agreement", f.share(t.agreement), "like the teacher"))
    facts += _text_facts(t)
    if t.size_bytes is not None:
        facts.append(("size", f.size(t.size_bytes), f"teacher {f.size(report.teacher.size_bytes)}"))
    if t.throughput_per_s is not None:
        facts.append(("throughput", f"{f.significant(t.throughput_per_s)}/s", _pace(t)))
    if t.peak_rss_bytes is not None:
        facts.append(("peak memory", f.size(t.peak_rss_bytes), "whole process"))
    return facts


def _spread(target: TargetRecord, name: str) -> str:
    """The 95 % interval of the difference from the teacher, paired on the same data; empty where there is none."""
    found = target.evidence.get(name)
    if found is None or found.drop is None or found.drop.interval is None:
        return ""
    low, high = found.drop.interval
    return f", 95 % {f.signed(-high)} to {f.signed(-low)} over {found.n} {found.unit}"


def _text_facts(t: TargetRecord) -> list[tuple[str, str, str]]:
    """How fast a captioning target speaks, where that was measured."""
    found, facts = {k: number(t.metrics.get(k)) for k in ("first_token_ms", "tokens_per_s", "caption_agreement")}, []
    if found["caption_agreement"] is not None:
        facts.append(("equal captions", f.share(found["caption_agreement"]), "like the teacher's"))
    if found["first_token_ms"] is not None:
        facts.append(("first token", f.milliseconds(found["first_token_ms"]), "p50, from the picture on"))
    if found["tokens_per_s"] is not None:
        facts.append(("text", f"{f.significant(found['tokens_per_s'])} tokens/s", "after the first"))
    return facts


def summary(report: Report) -> str:
    """One sentence: the fastest measured target against the teacher."""
    measured = [t for t in report.targets if t.latency_ms is not None]
    base, name = reference(report), metric_name(report)
    if not measured or base is None:
        return "No target was measured on this machine."
    best = min(measured, key=lambda t: t.latency_ms.p50 if t.latency_ms else 0.0)
    factor = speedup(report, best)
    parts = [f"{best.name}: {f.milliseconds(best.latency_ms.p50 if best.latency_ms else None)} per {_each(best)}"]
    if factor is not None:
        parts.append(f"{f.times(factor)} faster than {base[0]} ({f.milliseconds(base[2].p50)})")
    value, teacher = number(best.metrics.get(name)), number(report.teacher.metrics.get(name))
    if value is not None and teacher is not None:
        title = title_of(name)
        parts.append(f"{title} {f.score(value)}, {f.signed(value - teacher)} against the teacher")
    if best.size_bytes:
        parts.append(f"{f.size(best.size_bytes)}, {f.times(report.teacher.size_bytes / best.size_bytes)} smaller")
    return "; ".join(parts) + "."


def points(report: Report) -> tuple[list[Point], list[str]]:
    """Points of the accuracy-latency plot, and the names of artefacts that lack one of the two."""
    name, keys = metric_name(report), _keys(report)
    found, left = [], []
    base_device = (reference(report) or ("", "cpu", None))[1]
    teacher = report.teacher
    if teacher.latency_ms is not None and (y := number(teacher.metrics.get(name))) is not None:
        text = f"{teacher.name}, {f.milliseconds(teacher.latency_ms.p50)}"
        found.append(Point("T", text, teacher.latency_ms.p50, y, teacher.size_bytes, "teacher"))
    for role, rows in (("baseline", report.baselines), ("target", report.targets)):
        for row in rows:
            y = number(row.metrics.get(name)) if name != "agreement" else row.agreement
            x = row.central_ms
            if x is None or y is None:
                left.append(row.name)
                continue
            low, high = (row.interval.low_ms, row.interval.high_ms) if row.interval else (None, None)
            place = "" if row.device == base_device else f" on {row.device}"
            text = f"{row.name}, {interval_text(row) if row.interval else f.milliseconds(x)}{place}"
            found.append(Point(keys[(role, row.name)], text, x, y, row.size_bytes, role, low, high))
    return found, left


def matrices(report: Report) -> list[Matrix]:
    """Confusion matrices of the teacher and of every target that has one."""
    named = [(report.teacher.name, report.teacher.metrics), *((t.name, t.metrics) for t in report.targets)]
    found = []
    for name, metrics in named:
        counts = metrics.get("confusion")
        if isinstance(counts, list) and counts and len(counts) == len(report.classes):
            found.append(_matrix(name, counts, report.classes, metrics))
    return _without_twins(found)


def _without_twins(found: Sequence[Matrix]) -> list[Matrix]:
    """Equal matrices once, with all their names."""
    merged: dict[str, Matrix] = {}
    for m in found:
        key = repr(m.rows)
        merged[key] = Matrix(f"{merged[key].name}, {m.name}", m.rows, m.summary) if key in merged else m
    return list(merged.values())


def _matrix(name: str, counts: list[list[int]], classes: Sequence[str], metrics: dict[str, Any]) -> Matrix:
    rows = []
    iou = metrics.get("iou") or {}
    for label, row in zip(classes, counts, strict=True):
        total = sum(row)
        cells = [(f"{100 * c / total:.1f}" if total else "", f"{c:,}", c / total if total else 0.0) for c in row]
        value = number(iou.get(label)) if isinstance(iou, dict) else None
        rows.append((label, cells, f.score(value)))
    parts = [_with_interval(k, metrics) for k in headline_order() if k in metrics]
    if "n" in metrics:
        parts.append(f"{int(metrics['n']):,} pixels")
    return Matrix(name, rows, " · ".join(parts))


def _with_interval(name: str, metrics: dict[str, Any]) -> str:
    """A metric's title and figure, with the interval that stands beside it in a record."""
    text, interval = f"{title_of(name)} {f.score(number(metrics.get(name)))}", metrics.get(f"{name}_interval")
    return text if interval is None else f"{text} (95 % interval {f.score(interval[0])} to {f.score(interval[1])})"


def details_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and text cells of a stage's own table, columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[f.figure(c, row.get(c)) for c in columns] for row in rows]


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


def changes(stage: StageRecord) -> list[tuple[str, str, str]]:
    """(figure, before, after) of a stage, for every figure on either side."""
    names = dict.fromkeys([*stage.before, *stage.after])
    return [(n, f.figure(n, stage.before.get(n)), f.figure(n, stage.after.get(n))) for n in names]


def flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as dotted names with text values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else f.figure(key, value)


def number(value: Any) -> float | None:
    """A figure of a record's metrics; None of what is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def budget_headline(budget: Budget) -> str:
    """The result of a budget in words, the word predicted included."""
    return amount_text(budget.result, budget.provenance == "predicted")


def budget_facts(budget: Budget) -> list[tuple[str, str]]:
    """(name, value) of what a mission planner asks for; ranges of predicted figures carry the word."""
    used = f"{_amount(budget.energy_wh)} of {f.significant(budget.energy_available_wh)} Wh"
    rows = [("energy of the computer", used)]
    rows += [(f"data, {name}", _amount(a.model_copy(update=_mega(a)))) for name, a in budget.data.items()]
    return rows + [(name, _amount(a)) for name, a in budget.facts.items()]


def _mega(amount: Amount) -> dict[str, Any]:
    return {"low": amount.low / 1e6, "mid": amount.mid / 1e6, "high": amount.high / 1e6, "unit": "MB"}


def _amount(amount: Amount) -> str:
    if amount.low == amount.high:
        return f"{f.significant(amount.mid)} {amount.unit}"
    return f"predicted {f.significant(amount.low)} to {f.significant(amount.high)} {amount.unit}"
