"""Figures of a step before and after it are of one clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from rsedge.cache.stage import Results, StageResult
from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio, LayerMs, NetFigures
from rsedge.compress.replace.replacing import ReplaceRecord, ReplaceTrial
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


def test_what_was_tried_stands_target_by_target_beside_the_step_before_it() -> None:
    found = LatencyRatio(value=0.8, low=0.7, high=0.9, planned=0.8, provenance="measured")
    trial = ReplaceTrial(
        what="relu in 3 layers", outcome="applied", reason="r", latency={"a": found, "b": found}, score=0.9
    )
    record = ReplaceRecord(outcome="applied", reason="why", before=0.95, after=0.9, trials=(trial,))
    timed = {
        f"step-{n}": SimpleNamespace(latency_ms=SimpleNamespace(p50=ms))
        for n, ms in (("distill", 5.0), ("replace", 4.0))
    }
    values = {
        "replace": records.Replace(record=record, params=7, macs=8),
        "verify": records.Verify.model_construct(targets={}, steps={}, measurements=timed, layers=[]),
    }
    results = Results({n: StageResult(n, Path(), v, "", 1.0, False) for n, v in values.items()})
    (row,) = [r for r in stage_rows(results) if r.name == "replace"]
    assert row.reason == "why" and (row.before["score"], row.before["latency_ms"]) == (0.95, 5.0)
    assert (row.after["score"], row.after["latency_ms"], row.after["params"]) == (0.9, 4.0, 7)
    assert [(d["target"], d["time_over_before"], d["outcome"]) for d in row.details] == [
        ("a", 0.8, "applied"), ("b", 0.8, "applied")
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["measured", "predicted"])
def test_times_of_layers_carry_the_word(word: Literal["measured", "predicted"]) -> None:
    left = {
        "head": LayerMs(before=0.3, after=0.1, provenance=word),
        "gone": LayerMs(before=1.0, after=0.0, provenance=word),
    }
    assert rows({}, left)["prune"].reason == f"most of the time is left in head 100% ({word} 0.3 to 0.1 ms)"
