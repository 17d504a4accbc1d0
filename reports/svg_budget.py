"""A mission budget as a picture: how far each part of the mission carries, on one log scale."""

from __future__ import annotations

from markupsafe import Markup

from rsedge.devices.mission.budget import Budget, LimitRecord
from rsedge.reports.figures import significant
from rsedge.reports.svg import Frame, Scale, drawing, log_ticks, logarithmic

ROW = 30.0
LEFT, RIGHT, TOP, BOTTOM = 92.0, 175.0, 10.0, 42.0


def limits(budget: Budget) -> Markup:
    """One row per limit: a dot at the middle, a bar over the interval; the limit that binds stands out.

    Limits that rest on a predicted latency or energy are hollow and carry the word.
    """
    values = [v for x in budget.limits for v in (x.amount.low, x.amount.mid, x.amount.high) if v > 0]
    if not values:
        return Markup("")
    height = TOP + ROW * len(budget.limits) + BOTTOM
    title = f"{budget.result.unit} (log scale)"
    frame = Frame(height=height, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM, x_title=title)
    low, high = min(values) / 1.5, max(values) * 1.5
    x = logarithmic(low, high, *frame.x_range)
    parts = [grid_line(frame, x, tick) for tick in log_ticks(low, high)]
    for index, limit in enumerate(budget.limits):
        parts.append(_row(budget, limit, TOP + ROW * (index + 0.5), x, frame.left))
    x0, x1 = frame.x_range
    parts.append(
        Markup('<text class="title mid" x="{:.1f}" y="{:.1f}">{}</text>').format((x0 + x1) / 2, height - 6, title)
    )
    return drawing(frame, parts, f"Limits of the mission for {budget.target}; {budget.bottleneck} is the smallest")


def grid_line(frame: Frame, x: Scale, tick: float) -> Markup:
    """A line down the picture with its value below."""
    y0, y1 = frame.y_range
    return Markup(
        '<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/><text class="tick mid" x="{:.1f}" y="{:.1f}">{:g}</text>'
    ).format(x(tick), y0, y1, x(tick), y0 + 16, tick)


def _row(budget: Budget, limit: LimitRecord, y: float, x: Scale, left: float) -> Markup:
    amount = limit.amount
    name = Markup('<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>').format(left - 10, y + 4, limit.name)
    binds = "binds" if limit.name == budget.bottleneck else ""
    if amount.low <= 0:
        zero = Markup('<g class="limit {}"><text x="{:.1f}" y="{:.1f}">0</text></g>').format(binds, left + 4, y + 4)
        return name + zero
    uncertain = not amount.is_exact
    words = f"{significant(amount.mid)}"
    if uncertain:
        words = f"predicted {significant(amount.low)} to {significant(amount.high)}"
    return name + Markup(
        '<g class="limit {} {}"><title>{}: {}</title><path d="M{:.1f} {:.1f}H{:.1f}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="5"/><text x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(
        binds,
        "hollow" if uncertain else "",
        limit.name,
        limit.what,
        x(amount.low),
        y,
        x(amount.high),
        x(amount.mid),
        y,
        x(amount.high) + 9,
        y + 4,
        words,
    )
