"""One model on many targets as a picture: a bar a target on one log scale, predictions hatched by outline and word."""

from __future__ import annotations

from markupsafe import Markup

from rsedge.devices.table.rows import LatencyRow, LatencyTable
from rsedge.reports.figures import significant
from rsedge.reports.svg import Frame, Scale, drawing, log_ticks, logarithmic
from rsedge.reports.svg_budget import grid_line

ROW = 26.0
LEFT, RIGHT, TOP, BOTTOM = 250.0, 190.0, 10.0, 42.0


def bars(table: LatencyTable) -> Markup:
    """A dot at the median or the middle, a line over p25 to p99 or the interval; predictions are hollow and carry the word."""
    ends = [v for row in table.rows for v in (row.low_ms, row.p99_ms or row.high_ms)]
    if not ends:
        return Markup("")
    low, high = min(ends) / 1.3, max(ends) * 1.3
    title = "latency (ms, log scale)"
    frame = Frame(
        height=TOP + ROW * len(table.rows) + BOTTOM, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM, x_title=title
    )
    x = logarithmic(low, high, *frame.x_range)
    parts = [grid_line(frame, x, tick) for tick in log_ticks(low, high)]
    parts += [_bar(row, TOP + ROW * (i + 0.5), x, row.target == table.baseline) for i, row in enumerate(table.rows)]
    middle = sum(frame.x_range) / 2
    parts.append(
        Markup('<text class="title mid" x="{:.1f}" y="{:.1f}">{}</text>').format(middle, frame.height - 6, title)
    )
    return drawing(frame, parts, f"Latency of {table.model} on {len(table.rows)} targets, the fastest first")


def _bar(row: LatencyRow, y: float, x: Scale, baseline: bool) -> Markup:
    end, kind = row.p99_ms or row.high_ms, "binds" if baseline else ""
    predicted = "predicted" if row.provenance == "predicted" else ""
    words = row.words if predicted else f"{row.words} ({row.provenance})"
    name = Markup('<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>').format(LEFT - 10, y + 4, row.target)
    return name + Markup(
        '<g class="limit {} {}"><title>{}: {}; middle {} ms</title><path d="M{:.1f} {:.1f}H{:.1f}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="5"/><text x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(
        kind,
        predicted,
        row.target,
        words,
        significant(row.ms),
        x(row.low_ms),
        y,
        x(end),
        x(row.ms),
        y,
        x(end) + 10,
        y + 4,
        words,
    )
