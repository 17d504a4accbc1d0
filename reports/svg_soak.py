"""Latency over time: the median and the worst run of each part of a soak."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rsedge.devices.measure.soak import Slice
from rsedge.reports.figures import significant
from rsedge.reports.svg import Frame, axes, drawing, linear, log_ticks, logarithmic, nice_ticks


def over_time(slices: Sequence[Slice], seconds: float, period_ms: float | None, title: str) -> Markup:
    """A line of medians, a dot for the worst run of each part, a line at the period."""
    frame = Frame(height=300, x_title="seconds since the start", y_title="latency (ms, log scale)")
    values = [v for one in slices for v in (one.p50_ms, one.worst_ms)] + ([period_ms] if period_ms else [])
    low, high = min(values) / 1.2, max(values) * 1.2
    x, y = linear(0, seconds, *frame.x_range), logarithmic(low, high, *frame.y_range)
    ticks = log_ticks(low, high) or [min(values), max(values)]
    parts = axes(frame, x, nice_ticks(0, seconds), y, ticks)
    if period_ms is not None:
        parts.append(
            Markup('<path class="line s3" d="M{:.1f} {:.1f}H{:.1f}"><title>period {} ms</title></path>').format(
                frame.x_range[0], y(period_ms), frame.x_range[1], significant(period_ms)
            )
        )
    path = "M" + "L".join(f"{x(one.at_s):.1f} {y(one.p50_ms):.1f}" for one in slices)
    parts.append(Markup('<path class="line s0" d="{}"><title>median</title></path>').format(path))
    dot = Markup('<circle class="dot s1" cx="{:.1f}" cy="{:.1f}" r="2"><title>{}</title></circle>')
    for one in slices:
        text = f"worst of {one.n} from {one.at_s:.1f} s: {significant(one.worst_ms)} ms"
        parts.append(dot.format(x(one.at_s), y(one.worst_ms), text))
    return drawing(frame, parts, title)
