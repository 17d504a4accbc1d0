"""Figures of a step before and after it are of one clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from rsedge.cache.stage import Results, StageResult
from rsedge.compress.prune.pruning import LatencyEstimate, LayerMs, NetFigures
from rsedge.results import records
from rsedge.stages.rows import stage_rows

BOARD = LatencyEstimate(ms=0.4, low=0.3, high=0.5, provenance="predicted")


def rows(measured: dict[str, float], layers: dict[str, LayerMs] | None = None) -> dict[str, Any]:
    """The report's row of a pruning for a board that is not here, of a run that was measured here."""
    figures = NetFigures(params=9, macs=9, latency=BOARD)
    pruned = SimpleNamespace(outcome="applied", reason="", before=figures, after=figures, steps=(), layers=layers or {})
    timed = {f"step-{name}": SimpleNamespace(latency_ms=SimpleNamespace(p50=ms)) for name, ms in measured.items()}
    values = {
        "prune": records.Prune.model_construct(record=pruned),
        "verify": records.Verify.model_construct(targets={}, steps={}, measurements=timed, layers=[]),
    }
    results = Results({n: StageResult(n, Path(), v, "", 1.0, False) for n, v in values.items()})
    return {row.name: row for row in stage_rows(results)}


@pytest.mark.parametrize(
    ("measured", "ms"), [({}, (0.4, 0.4, "predicted")), ({"distill": 7.0, "prune": 5.0}, (7.0, 5.0, "measured"))]
)
def test_a_prediction_of_a_board_stands_beside_no_measurement_here(
    measured: dict[str, float], ms: tuple[float, float, str]
) -> None:
    row = rows(measured)["prune"]
    assert (row.before["latency_ms"], row.after["latency_ms"]) == ms[:2]
    assert row.before["provenance"] == row.after["provenance"] == ms[2]


@pytest.mark.parametrize("word", ["measured", "predicted"])
def test_times_of_layers_carry_the_word(word: Literal["measured", "predicted"]) -> None:
    left = {
        "head": LayerMs(before=0.3, after=0.1, provenance=word),
        "gone": LayerMs(before=1.0, after=0.0, provenance=word),
    }
    assert rows({}, left)["prune"].reason == f"most of the time is left in head 100% ({word} 0.3 to 0.1 ms)"
