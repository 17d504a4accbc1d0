"""From the report record to the rows, cards and plots that the page shows; no HTML here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rsedge.data.metrics import verdict
from rsedge.data.metrics.table import headline_order, step_scores, title_of
from rsedge.data.metrics.verdict import Gate
from rsedge.devices.measure.protocol import LatencyMs
from rsedge.reports import figures as f
from rsedge.reports.schema import BaselineRecord, Report, StageRecord, TargetRecord
from rsedge.reports.svg import Point
from rsedge.reports.tables import Cell, Column, Table
from rsedge.reports.texts import QUANTILES, Artefact, Texts, caution, interval_of, metric_of, number, reference, speedup


@dataclass(frozen=True)
class Row:
    """One row of the comparison table; every cell is text already."""

    name: str
    role: str
    state: str = ""
    notes: tuple[str, ...] = ()
    key: str = ""
    cells: dict[str, str] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Whether one text, a predicted interval, stands for all percentiles."""
        return self.role == "target" and self.cells.get("p50", "").startswith("predicted")

    @property
    def texts(self) -> list[str]:
        """The cells in the order of the columns, without those that one text stands for."""
        columns = COLUMNS[len(QUANTILES) :] if self.wide else COLUMNS
        return [self.cells.get(c, f.DASH) for c in columns]


@dataclass(frozen=True)
class Card:
    """One target's verdict with its figures, gates and parts."""

    target: TargetRecord
    verdict: str
    headline: str
    facts: list[tuple[str, str, str]]
    gates: Table | None
    parts: Table | None
    notes: list[str]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: per cell (share of its row as text, count as text, share 0..1)."""

    name: str
    rows: list[tuple[str, list[tuple[str, str, float]], str]]
    summary: str


COLUMNS = ("p50", "p90", "p99", "speed-up", "metric", "vs teacher", "agreement", "size", "memory", "params", "MACs")


def metric_name(report: Report) -> str:
    """The accuracy figure this report compares by: the first of the table of metrics that the teacher or a
    target has; otherwise agreement with the teacher."""
    for name in headline_order():
        if any(number(m.get(name)) is not None for m in [report.teacher.metrics, *(t.metrics for t in report.targets)]):
            return name
    return "agreement"


def table(report: Report) -> list[Row]:
    """Teacher, baselines, one row per compression step, and the targets."""
    rows = [_teacher_row(report)]
    rows += [_artefact_row(report, b, "baseline") for b in report.baselines]
    rows += [_stage_row(s, report) for s in report.stages if has_figures(s)]
    rows += [_artefact_row(report, t, "target") for t in report.targets]
    keys = _keys(report)
    return [Row(r.name, r.role, r.state, r.notes, keys.get((r.role, r.name), ""), r.cells) for r in rows]


def has_figures(stage: StageRecord) -> bool:
    """True for a compression step: it has figures of the student after it, or was rejected or skipped as one."""
    known = {"params", "macs", "size_bytes", "latency_ms", "agreement", *step_scores()}
    return bool(known & (set(stage.after) | set(stage.before)))


def _keys(report: Report) -> dict[tuple[str, str], str]:
    """The letter or number an artefact has in the plot."""
    keys = {("teacher", report.teacher.name): "T"}
    keys |= {("baseline", b.name): f"B{i}" for i, b in enumerate(report.baselines, 1)}
    return keys | {("target", t.name): str(i) for i, t in enumerate(report.targets, 1)}


def _teacher_row(report: Report) -> Row:
    t, name = report.teacher, metric_name(report)
    cells = _latency_cells(t.latency_ms) | {
        "metric": Texts.of(report).metric(name, number(t.metrics.get(name))),
        "params": f.count(t.params),
        "MACs": f.count(t.macs),
        "size": f.size(t.size_bytes),
    }
    return Row(t.name, "teacher", cells=cells)


def _artefact_row(report: Report, row: Artefact, role: str) -> Row:
    name, texts = metric_name(report), Texts.of(report)
    cells = _latency_cells(row.latency_ms) | {
        "speed-up": f.times(speedup(report, row)),
        "metric": texts.metric(name, metric_of(row, name)),
        "vs teacher": texts.difference(name, _over_teacher(report, metric_of(row, name))),
        "agreement": texts.metric("agreement", row.agreement),
        "size": f.size(row.size_bytes),
        "memory": f.size(row.peak_rss_bytes),
    }
    if isinstance(row, TargetRecord):
        cells |= {"params": f.count(row.params), "MACs": f.count(row.macs)}
    if row.interval is not None:
        cells |= {"p50": interval_text(row)}
    state = "" if isinstance(row, BaselineRecord) else row.judged.word
    # Of targets the banner and the cards say so in full.
    care = caution(row) if isinstance(row, BaselineRecord) else caution(row).partition(":")[0]
    return Row(row.name, role, state, tuple(filter(None, (row.reason, care))), cells=cells)


def _over_teacher(report: Report, value: float | None) -> float | None:
    """How far a figure of the metric that is compared by lies over the teacher's."""
    teacher = number(report.teacher.metrics.get(metric_name(report)))
    return None if value is None or teacher is None else value - teacher


def interval_text(row: Artefact) -> str:
    """A predicted latency in words, never a bare number."""
    if row.interval is None:
        return f.DASH
    return f"predicted {f.milliseconds(row.interval.low_ms)} to {f.milliseconds(row.interval.high_ms)}"


def _stage_row(stage: StageRecord, report: Report) -> Row:
    after = stage.after if stage.outcome == "applied" else (stage.after or stage.before)
    name, texts = metric_name(report), Texts.of(report)
    value, latency = number(after.get(name)), number(after.get("latency_ms"))
    cells = {
        "p50": f.milliseconds(latency),
        "metric": texts.metric(name, value),
        "vs teacher": texts.difference(name, _over_teacher(report, value)),
        "agreement": texts.metric("agreement", number(after.get("agreement"))),
        "params": f.count(number(after.get("params"))),
        "MACs": f.count(number(after.get("macs"))),
        "size": f.size(number(after.get("size_bytes"))),
    }
    if after.get("provenance") == "predicted" and latency is not None:
        cells["p50"] = f"predicted {f.milliseconds(latency)}"
    return Row(stage.name, "step", stage.outcome, tuple(filter(None, (stage.reason,))), cells=cells)


def _latency_cells(latency: LatencyMs | None) -> dict[str, str]:
    if latency is None:
        return {}
    return {q: f.milliseconds(getattr(latency, q)) for q in QUANTILES}


def cards(report: Report) -> list[Card]:
    """One per target, in the order of the report."""
    return [_card(report, target) for target in report.targets]


def _card(report: Report, target: TargetRecord) -> Card:
    basis = target.interval.basis if target.interval is not None else ""
    notes = [basis, target.reason or "", caution(target), _parity(target)]
    return Card(
        target, target.judged.word, headline(report, target), _facts(report, target),
        gate_table(report, target.gates, f"Gates of {target.name}") if target.gates else None,
        _part_table(target) if target.parts else None, [n for n in notes if n],
    )  # fmt: skip


def _parity(target: TargetRecord) -> str:
    texts = [f"{f.label(name)} {f.check_figures(check)}" for name, check in (target.parity or {}).items()]
    return f"parity: {' · '.join(texts)}" if texts else ""


def gate_table(report: Report, gates: Sequence[Gate], caption: str, *, targets: bool = False) -> Table:
    """Gates with value, limit, interval and what would decide them; ``targets`` says whose each is."""
    texts = Texts.of(report)
    head = [Column("target")] if targets else []
    columns = [*head, Column("gate"), Column("value", True), Column("limit", True), Column("outcome")]
    return Table(caption, columns, [([Cell(g.target)] if targets else []) + _gate_cells(g, texts) for g in gates])


def _gate_cells(gate: Gate, texts: Texts) -> list[Cell]:
    about = (verdict.interval_text(gate, texts.decimals_at(gate)), verdict.more_text(gate), gate.note or "")
    return [
        Cell(verdict.statement(gate), tuple(filter(None, about))),
        Cell(texts.gate(gate, gate.value)),
        Cell(verdict.limit_text(gate)),
        Cell(gate.word, badge=True),
    ]


def _part_table(target: TargetRecord) -> Table:
    columns = [
        Column("part"),
        Column("file"),
        *(Column(n, True) for n in ("agreement", "size", "one call", "teacher's", "calls")),
    ]
    rows = [
        [Cell(p.name), Cell(p.precision), Cell(f.share(p.agreement)), Cell(f.size(p.size_bytes)),
         Cell(f.milliseconds(p.latency_ms.p50 if p.latency_ms else None)),
         Cell(f.milliseconds(p.teacher_ms.p50 if p.teacher_ms else None)),
         Cell(f.DASH if p.calls is None else f.significant(p.calls))]
        for p in target.parts
    ]  # fmt: skip
    return Table(f"Parts of {target.name}", columns, rows)


def _each(target: TargetRecord) -> str:
    """What one run takes: of networks of several parts a sample."""
    return "sample" if target.parts else "tile"


def _pace(target: TargetRecord) -> str:
    """How a throughput was taken."""
    piped = target.measurement is None or target.measurement.throughput_method == "stream"
    return f"{_each(target)}s, {'pipelined' if piped else 'one after the other'}"


def headline(report: Report, target: TargetRecord) -> str:
    """The one figure of a target's latency: how many times faster, or how long, or predicted, or not known."""
    if target.interval is not None:
        return interval_text(target)
    if target.latency_ms is None:
        return "latency unavailable"
    factor = speedup(report, target)
    return f"{f.times(factor)} as fast" if factor is not None else f.milliseconds(target.latency_ms.p50)


def _facts(report: Report, t: TargetRecord) -> list[tuple[str, str, str]]:
    """(label, value, note) triples of a card."""
    name, texts = metric_name(report), Texts.of(report)
    facts = []
    if t.latency_ms is not None:
        tail = f"p90 {f.milliseconds(t.latency_ms.p90)} · p99 {f.milliseconds(t.latency_ms.p99)}"
        facts.append(("latency p50", f.milliseconds(t.latency_ms.p50), tail))
    if t.speedup is not None and speedup(report, t) is not None:
        low, high = f.times(t.speedup.low), f.times(t.speedup.high)
        note = f"95 % {low} to {high}, {t.speedup.turns} turns, {t.speedup.clock}"
        facts.append(("speed-up", f.times(t.speedup.value), note))
    if t.interval is not None:
        facts.append(("middle of the interval", f"predicted {f.milliseconds(t.interval.mid_ms)}", ""))
    if (value := metric_of(t, name)) is not None and name != "agreement":
        facts.append((title_of(name), texts.metric(name, value), _against_teacher(report, t, value)))
    if t.agreement is not None:
        facts.append(("agreement", texts.metric("agreement", t.agreement), "like the teacher"))
    facts += _text_facts(t)
    if t.size_bytes is not None:
        facts.append(("size", f.size(t.size_bytes), f"teacher {f.size(report.teacher.size_bytes)}"))
    if t.throughput_per_s is not None:
        facts.append(("throughput", f"{f.significant(t.throughput_per_s)}/s", _pace(t)))
    if t.peak_rss_bytes is not None:
        facts.append(("peak memory", f.size(t.peak_rss_bytes), "whole process"))
    return facts


def _against_teacher(report: Report, target: TargetRecord, value: float) -> str:
    """The teacher's figure, the difference and its interval, paired on the same data; empty where the teacher has none."""
    name, texts = metric_name(report), Texts.of(report)
    over = _over_teacher(report, value)
    if over is None:
        return ""
    teacher = texts.metric(name, number(report.teacher.metrics.get(name)))
    found, spread = target.evidence.get(name), ""
    if found is not None and found.drop is not None and found.drop.interval is not None:
        low, high = (texts.difference(name, -v) for v in reversed(found.drop.interval))
        spread = f", 95 % {low} to {high} over {found.n} {found.unit}"
    return f"teacher {teacher} ({texts.difference(name, over)}{spread})"


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
    base, name, texts = reference(report), metric_name(report), Texts.of(report)
    if not measured or base is None:
        return "No target was measured on this machine."
    best = min(measured, key=lambda t: t.latency_ms.p50 if t.latency_ms else 0.0)
    factor = speedup(report, best)
    parts = [f"{best.name}: {f.milliseconds(best.latency_ms.p50 if best.latency_ms else None)} per {_each(best)}"]
    if factor is not None:
        parts.append(f"{f.times(factor)} as fast as {base[0]} ({f.milliseconds(base[2].p50)})")
    value = metric_of(best, name)
    if (over := _over_teacher(report, value)) is not None:
        against = texts.difference(name, over)
        parts.append(f"{title_of(name)} {texts.metric(name, value)}, {against} against the teacher")
    if best.size_bytes:
        parts.append(f"{f.size(best.size_bytes)}, {f.times(report.teacher.size_bytes / best.size_bytes)} smaller")
    return "; ".join(parts) + "."


def points(report: Report) -> tuple[list[Point], list[str]]:
    """Points of the accuracy-latency plot, and the names of artefacts that lack one of the two.

    The teacher's point is that of the baseline in f32 where there is one: its latency was measured there.
    """
    name, keys, teacher, base = metric_name(report), _keys(report), report.teacher, reference(report)
    found, left = [], []
    y = number(teacher.metrics.get(name))
    if teacher.latency_ms is not None and y is not None and base is not None and base[0] == "teacher":
        words = f"{teacher.name}, measured p50 {f.milliseconds(teacher.latency_ms.p50)}"
        found.append(Point("T", words, teacher.latency_ms.p50, y, teacher.size_bytes, "teacher"))
    for role, rows in (("baseline", report.baselines), ("target", report.targets)):
        for row in rows:
            point = _point(report, row, role, keys[(role, row.name)], metric_of(row, name))
            if point is None:
                left.append(row.name)
            else:
                found.append(point)
    return found, left


def _point(report: Report, row: Artefact, role: str, key: str, y: float | None) -> Point | None:
    name, x = metric_name(report), row.central_ms
    if x is None or y is None:
        return None
    base = reference(report)
    place = "" if row.device == (base[1] if base else "cpu") else f" on {row.device}"
    spread = interval_of(row, name)
    low, high = (row.interval.low_ms, row.interval.high_ms) if row.interval else (None, None)
    p90, p99 = (row.latency_ms.p90, row.latency_ms.p99) if row.latency_ms else (None, None)
    return Point(
        key, f"{row.name}, {_point_words(report, row, spread)}{place}", x, y, row.size_bytes, role, low, high,
        y_low=spread[0] if spread else None, y_high=spread[1] if spread else None, p90=p90, p99=p99,
        care=caution(row).partition(":")[0],
    )  # fmt: skip


def _point_words(report: Report, row: Artefact, spread: tuple[float, float] | None) -> str:
    name, texts = metric_name(report), Texts.of(report)
    if row.latency_ms is None:
        latency = interval_text(row)
    else:
        latency = "measured " + ", ".join(f"{q} {f.milliseconds(getattr(row.latency_ms, q))}" for q in QUANTILES)
    score = f"{title_of(name)} {texts.metric(name, metric_of(row, name))}"
    if spread is not None:
        score += f" (95 % {texts.metric(name, spread[0])} to {texts.metric(name, spread[1])})"
    return "; ".join(filter(None, (latency, score, caution(row))))


def marks(report: Report) -> dict[str, list[tuple[str, float, float]]]:
    """By artefact the percentiles (name, share, ms) of the record: those of all calls, of which a report draws a part."""
    rows = [row for row in (*report.baselines, *report.targets) if row.latency_ms is not None]
    return {row.name: [(q, int(q[1:]) / 100, getattr(row.latency_ms, q)) for q in QUANTILES] for row in rows}


def seams(report: Report) -> Table | None:
    """What tiling does to the maps of targets: classes that change at seams, elsewhere, their ratio, and the pixels that depend on
    the extent that was mapped."""
    found = [(t.name, t.seams) for t in report.targets if t.seams is not None]
    rows = [
        [Cell(name), Cell(f.share(s.at)), Cell(f.share(s.elsewhere)), Cell(f.DASH if s.over is None else f"{s.over:.2f}"),
         Cell(f.share(s.extent))]
        for name, s in found
    ]  # fmt: skip
    columns = ["unlike neighbours at seams", "elsewhere", "ratio", "depend on the extent"]
    heads = [Column("target"), *(Column(c, True) for c in columns)]
    return Table("Seams and extent", heads, rows) if rows else None


def matrices(report: Report) -> list[Matrix]:
    """Confusion matrices of the teacher and of every target that has one."""
    named = [(report.teacher.name, report.teacher.metrics), *((t.name, t.metrics) for t in report.targets)]
    texts = Texts.of(report)
    found = []
    for name, metrics in named:
        counts = metrics.get("confusion")
        if isinstance(counts, list) and counts and len(counts) == len(report.classes):
            found.append(_matrix(name, counts, report.classes, metrics, texts))
    return _without_twins(found)


def _without_twins(found: Sequence[Matrix]) -> list[Matrix]:
    """Equal matrices once, with all their names."""
    merged: dict[str, Matrix] = {}
    for m in found:
        key = repr(m.rows)
        merged[key] = Matrix(f"{merged[key].name}, {m.name}", m.rows, m.summary) if key in merged else m
    return list(merged.values())


def _matrix(
    name: str, counts: list[list[int]], classes: Sequence[str], metrics: dict[str, Any], texts: Texts
) -> Matrix:
    rows = []
    iou = metrics.get("iou") or {}
    for label, row in zip(classes, counts, strict=True):
        total = sum(row)
        cells = [(f"{100 * c / total:.1f}" if total else "", f"{c:,}", c / total if total else 0.0) for c in row]
        value = number(iou.get(label)) if isinstance(iou, dict) else None
        rows.append((label, cells, f.score(value)))
    parts = [_with_interval(k, metrics, texts) for k in headline_order() if k in metrics]
    if "n" in metrics:
        parts.append(f"{int(metrics['n']):,} pixels")
    return Matrix(name, rows, " · ".join(parts))


def _with_interval(name: str, metrics: dict[str, Any], texts: Texts) -> str:
    """A metric's title and figure, with the interval that stands beside it in a record."""
    text, interval = (
        f"{title_of(name)} {texts.metric(name, number(metrics.get(name)))}",
        metrics.get(f"{name}_interval"),
    )
    if interval is None:
        return text
    low, high = (texts.metric(name, v) for v in interval)
    return f"{text} (95 % interval {low} to {high})"
