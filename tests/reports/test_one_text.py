"""A quantity is one text wherever it stands: every figure with a unit on a page is one of those that the record has."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings

from rsedge.data import numbers
from rsedge.data.metrics.verdict import limit_text
from rsedge.reports.assets import ReportAssets
from rsedge.reports.html import render
from rsedge.reports.markdown import render_markdown
from rsedge.reports.schema import Report
from rsedge.reports.texts import Texts
from tests.reports.random_reports import reports

SCORE = re.compile(r"(?<![\w.,])(?<!predicted )(?<!min_speedup )0\.\d{3,}(?![\d ]* ?(?:×|ms|%|kB|MB|GB|/s))")
FIGURE = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)? ?(?:×|ms\b|kB|MB|GB)")


def figures_of(report: Report) -> Iterator[str]:
    """What the record has with a unit, each once."""
    best = [t for t in report.targets if t.latency_ms is not None]
    for row in (*report.baselines, *report.targets):
        if row.latency_ms is not None:
            yield from (numbers.milliseconds(v) for v in (row.latency_ms.p50, row.latency_ms.p90, row.latency_ms.p99))
        if row.interval is not None:
            ends = (row.interval.low_ms, row.interval.mid_ms, row.interval.high_ms)
            yield from (numbers.milliseconds(v) for v in ends)
        if row.speedup is not None:
            yield from (numbers.times(v) for v in (row.speedup.value, row.speedup.low, row.speedup.high))
        yield from (numbers.size(v) for v in (row.size_bytes, row.peak_rss_bytes))
    yield from (numbers.times(report.teacher.size_bytes / t.size_bytes) for t in best if t.size_bytes)
    yield from (limit_text(g)[2:] for g in report.judged.gates)


def shown(page: str) -> str:
    """What a reader sees of a page, without its styles, its pictures' axes and its glossary."""
    body = re.sub(r"<style.*?</style>|<script.*?</script>|<dl class=\"glossary\">.*?</dl>", "", page, flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<text class=\"(?:tick|title)[^>]*>[^<]*</text>", "", body)))


def scores_of(report: Report) -> Iterator[str]:
    """Every kappa, difference from the teacher's, limit and end of an interval that the record has."""
    texts, teacher = Texts.of(report), report.teacher.metrics["kappa"]
    values = [teacher, *(row.metrics["kappa"] for row in (*report.baselines, *report.targets))]
    yield from (texts.metric("kappa", v) for value in values for v in (value, abs(value - teacher)))
    yield from (f"{one.damage:.4f}" for stage in report.stages for one in stage.damage)
    yield from (limit_text(g)[2:].lstrip("-") for g in report.judged.gates)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reports())
def test_figures_on_a_page_are_those_of_the_record(report: Report) -> None:
    samples = {row.name: [row.latency_ms.p50] * 3 for row in report.targets if row.latency_ms is not None}
    page = render(report, ReportAssets(latency_samples=samples))
    text = shown(page)
    assert {f.strip() for f in FIGURE.findall(text)} <= set(figures_of(report))
    assert set(SCORE.findall(text)) <= set(scores_of(report))
    assert "views, drawn anew" in text and not re.search(r"train\s+0\b", text)
    _check_banner(report, shown(page.split("</header>")[0]))
    written = re.sub(r"\\(.)", r"\1", render_markdown(report).partition("## What the numbers mean")[0])
    assert {f.strip() for f in FIGURE.findall(written)} <= set(figures_of(report))
    _check_banner(report, written.partition("## Targets")[0])


def _check_banner(report: Report, top: str) -> None:
    """It names every gate that is not passed, and every target's fate."""
    for gate in report.judged.gates:
        if gate.outcome != "passed":
            assert gate.target in top and Texts.of(report).gate(gate, gate.value) in top and limit_text(gate) in top
    for target in report.targets:
        assert target.name in top and target.provenance in top and (target.reason or "") in top
