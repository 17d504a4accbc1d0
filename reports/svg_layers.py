"""Time per layer as a flame bar: one bar, layers in the order of execution, each as wide as its share of the time."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rsedge.reports.figures import milliseconds, share
from rsedge.reports.schema import LayerTime
from rsedge.reports.svg import Frame, drawing

WIDTH, HEIGHT = 900.0, 54.0
LABEL_FROM = 62.0
"""Layers at least this wide (user units) carry their type; the rest say it when pointed at."""
COLOURS = 8


def kinds(layers: Sequence[LayerTime]) -> list[str]:
    """Types of layers by falling total time; the eighth stands for all that come after (the palette has eight colours)."""
    total: dict[str, float] = {}
    for layer in layers:
        total[_kind(layer)] = total.get(_kind(layer), 0.0) + layer.ms
    order = sorted(total, key=lambda kind: -total[kind])
    return order if len(order) <= COLOURS else [*order[: COLOURS - 1], "other"]


def flame(layers: Sequence[LayerTime], label: str) -> Markup:
    """The bar; empty where nothing was timed."""
    total = sum(layer.ms for layer in layers)
    if not total > 0:
        return Markup("")
    order, at, parts = kinds(layers), 0.0, []
    for layer in layers:
        width = layer.ms / total * WIDTH
        kind = _kind(layer)
        colour = order.index(kind) if kind in order else len(order) - 1
        caption = f"{layer.name} ({layer.kernel or kind}): {milliseconds(layer.ms)}, {share(layer.ms / total)}"
        parts.append(
            Markup(
                '<rect class="block s{}" x="{:.2f}" y="0" width="{:.2f}" height="{:.0f}"><title>{}</title></rect>'
            ).format(colour, at, width, HEIGHT, caption)
        )
        if width >= LABEL_FROM:
            parts.append(
                Markup('<text class="mid inbar" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    at + width / 2, HEIGHT / 2 + 4, share(layer.ms / total)
                )
            )
        at += width
    return drawing(Frame(width=WIDTH, height=HEIGHT), parts, label, "plot flame")


def _kind(layer: LayerTime) -> str:
    return layer.type or "layer"
