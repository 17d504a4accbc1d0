"""Profiles of layers ready for a page: the bar, its key, and the slowest layers as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsedge.reports import figures
from rsedge.reports.schema import LayerProfile, LayerTime
from rsedge.reports.tables import Cell, Column, Table

SHOWN = 12


@dataclass(frozen=True)
class LayersView:
    """One profile: bar (SVG), types in the order of their colours, the slowest layers with their share, a last line."""

    record: LayerProfile
    bar: str
    kinds: list[str]
    slowest: Table
    summary: str


def layers_view(record: LayerProfile) -> LayersView:
    """What a page shows of a profile."""
    from rsedge.reports import svg_layers

    total = sum(layer.ms for layer in record.layers)
    slowest = sorted(record.layers, key=lambda layer: -layer.ms)[:SHOWN]
    rest = len(record.layers) - len(slowest)
    summary = f"{figures.milliseconds(total)} in {len(record.layers)} layers"
    if rest > 0:
        left = total - sum(layer.ms for layer in slowest)
        summary += f"; the {rest} not in the table take {figures.milliseconds(left)}"
    bar = svg_layers.flame(record.layers, f"Time per layer of {record.name}, in the order of execution")
    return LayersView(record, bar, svg_layers.kinds(record.layers), _table(record, slowest, total), summary)


def _table(record: LayerProfile, layers: Sequence[LayerTime], total: float) -> Table:
    columns = [Column("layer"), Column("type"), Column("kernel"), Column("time", True), Column("share", True)]
    rows = [
        [Cell(one.name), Cell(one.type), Cell(one.kernel), Cell(figures.milliseconds(one.ms)),
         Cell(figures.share(one.ms / total if total else 0.0))]
        for one in layers
    ]  # fmt: skip
    return Table(f"Slowest layers of {record.name}", columns, rows)


def page_context(title: str, records: list[LayerProfile]) -> dict[str, Any]:
    """What the template of a page of its own takes."""
    return {"title": title, "profiles": [layers_view(r) for r in records]}
