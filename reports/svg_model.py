"""The student layer by layer as pictures: its widths before and after a step, and what rounding each layer does."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rsedge.reports.schema import LayerDamage, LayerWidth
from rsedge.reports.svg import HATCH, Frame, Scale, axes, drawing, linear, nice_ticks

GAP = 0.18
"""Share of a layer's room that stays free."""


def widths(layers: Sequence[LayerWidth], label: str) -> Markup:
    """A bar a layer, in the order of the network: as wide it was as an outline, as it is filled."""
    tallest = max((max(one.before or 0, one.after or 0) for one in layers), default=0)
    if not tallest:
        return Markup("")
    frame = Frame(height=240, x_title="layers, in the order of the network", y_title="width")
    y = linear(0, tallest * 1.05, *frame.y_range)
    parts = axes(frame, lambda value: value, [], y, nice_ticks(0, tallest))
    for index, one in enumerate(layers):
        left, room = _place(frame, index, len(layers))
        caption = f"{one.layer}: {_width(one.before)} before, {_width(one.after)} after"
        parts.append(_bar("before", caption, left, room, y, frame, one.before or 0))
        parts.append(_bar("after", caption, left, room, y, frame, one.after or 0))
    return drawing(frame, parts, label, "plot model")


def _width(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def sensitivity(layers: Sequence[LayerDamage], label: str) -> Markup:
    """A bar a layer, in the order in which they run: the damage of rounding it; hatched where it is left in float."""
    worst = max((one.damage for one in layers), default=0.0)
    if not worst > 0:
        return Markup("")
    frame = Frame(height=240, x_title="layers, in the order in which they run", y_title="damage")
    y = linear(0, worst * 1.05, *frame.y_range)
    parts = [HATCH, *axes(frame, lambda value: value, [], y, nice_ticks(0, worst))]
    for index, one in enumerate(layers):
        left, room = _place(frame, index, len(layers))
        caption = f"{one.layer}: {one.damage:.4f}, {'float' if one.in_float else 'INT8'}"
        parts.append(_bar("float" if one.in_float else "after", caption, left, room, y, frame, one.damage))
    return drawing(frame, parts, label, "plot model")


def _place(frame: Frame, index: int, count: int) -> tuple[float, float]:
    """Left edge and width of a bar."""
    start, end = frame.x_range
    room = (end - start) / count
    return start + (index + GAP / 2) * room, room * (1 - GAP)


def _bar(kind: str, caption: str, left: float, wide: float, y: Scale, frame: Frame, value: float) -> Markup:
    top, bottom = y(value), frame.y_range[0]
    return Markup(
        '<rect class="layer {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(kind, left, top, wide, bottom - top, caption)
