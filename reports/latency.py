"""One model on many targets, ready for a page."""

from __future__ import annotations

from typing import Any

from rsedge.devices.table.rows import EnergyFigure, LatencyTable
from rsedge.reports import figures

LAYERS_SHOWN = 8


def page_context(table: LatencyTable) -> dict[str, Any]:
    """What the template takes: facts, the picture, a row of texts a target, and of predictions where their time goes."""
    from rsedge.reports import svg_latency

    return {
        "title": table.model,
        "facts": _facts(table),
        "plot": svg_latency.bars(table),
        "rows": [
            {
                "row": row, "over": table.over_baseline(row) or figures.DASH, "energy": energy_text(row.energy),
                "shares": sorted(row.share.items(), key=lambda item: -item[1])[:LAYERS_SHOWN],
            }
            for row in table.rows
        ],
        "table": table,
    }  # fmt: skip


def energy_text(energy: EnergyFigure | None) -> str:
    """Energy of one inference; a prediction with the word and its interval."""
    if energy is None:
        return figures.DASH
    if energy.provenance == "predicted":
        return f"predicted {energy.low:.3g} to {energy.high:.3g} mJ"
    return f"{energy.mid:.3g} mJ"


def _facts(table: LatencyTable) -> list[tuple[str, str]]:
    found = [("file", table.kind), ("threads, where it is timed", str(table.threads))]
    if table.macs is not None:
        found.append(("multiply-accumulates", figures.count(table.macs)))
    if table.weights is not None:
        found.append(("weights", figures.count(table.weights)))
    return found
