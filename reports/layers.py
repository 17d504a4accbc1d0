"""Profiles of layers ready for a page: the bar, its key, and the slowest layers as rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsedge.reports import figures
from rsedge.reports.schema import LayerProfile, LayerTime

SHOWN = 12


@dataclass(frozen=True)
class LayersView:
    """One profile: bar (SVG), types in the order of their colours, the slowest layers with their share, a last line."""

    record: LayerProfile
    bar: str
    kinds: list[str]
    slowest: list[tuple[LayerTime, str]]
    summary: str


def layers_view(record: LayerProfile) -> LayersView:
    """What a page shows of a profile."""
    from rsedge.reports import svg_layers

    total = sum(layer.ms for layer in record.layers)
    slowest = sorted(record.layers, key=lambda layer: -layer.ms)[:SHOWN]
    rows = [(layer, figures.share(layer.ms / total if total else 0.0)) for layer in slowest]
    rest = len(record.layers) - len(rows)
    summary = f"{figures.milliseconds(total)} in {len(record.layers)} layers"
    if rest > 0:
        left = total - sum(layer.ms for layer in slowest)
        summary += f"; the {rest} not in the table take {figures.milliseconds(left)}"
    bar = svg_layers.flame(record.layers, f"Time per layer of {record.name}, in the order of execution")
    return LayersView(record, bar, svg_layers.kinds(record.layers), rows, summary)


def page_context(title: str, records: list[LayerProfile]) -> dict[str, Any]:
    """What the template of a page of its own takes."""
    return {"title": title, "fmt": figures, "profiles": [layers_view(r) for r in records]}
