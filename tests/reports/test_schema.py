"""report.json: round trip, and records that contradict themselves are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from report_example import example

from rsedge.data.errors import RequestError
from rsedge.devices.measure import LatencyMs, measure
from rsedge.reports.schema import Gate, Interval, Report, TargetRecord, load_report, save_report

TARGET = {"name": "openvino-cpu-int8", "runtime": "openvino", "device": "cpu", "precision": "int8"}
LATENCY = LatencyMs(p50=1, p90=2, p99=3)
INTERVAL = Interval(low_ms=1, mid_ms=2, high_ms=3, basis="predicted, test")


def test_round_trip(tmp_path: Path) -> None:
    report, _ = example()
    save_report(report, tmp_path / "report.json")
    assert load_report(tmp_path / "report.json") == report


def test_contract_names(tmp_path: Path) -> None:
    """The names the issue promises to readers of report.json."""
    save_report(example()[0], tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert {"teacher", "stages", "targets", "environment", "data"} <= set(found)
    assert {"params", "macs", "size_bytes", "latency_ms", "metrics"} <= set(found["teacher"])
    assert {"p50", "p90", "p99"} <= set(found["teacher"]["latency_ms"])
    assert {"name", "outcome", "before", "after", "seconds", "reason"} <= set(found["stages"][0])
    assert {"manifest_sha256", "splits"} <= set(found["data"])
    wanted = "name runtime device precision provenance latency_ms interval throughput_per_s size_bytes peak_rss_bytes"
    assert {*wanted.split(), "metrics", "agreement", "parity", "gates"} <= set(found["targets"][0])
    assert {"name", "passed", "value", "limit"} <= set(found["targets"][0]["gates"][0])


@pytest.mark.parametrize(
    "figures",
    [
        {"provenance": "measured"},
        {"provenance": "measured", "latency_ms": LATENCY, "interval": INTERVAL},
        {"provenance": "predicted", "latency_ms": LATENCY},
        {"provenance": "predicted"},
        {"provenance": "unavailable"},
        {"provenance": "unavailable", "latency_ms": LATENCY, "reason": "x"},
        {"provenance": "guessed", "reason": "x"},
    ],
)
def test_provenance_fits_the_figures(figures: dict) -> None:
    with pytest.raises(ValidationError):
        TargetRecord(**TARGET, **figures)


def test_interval_is_ordered() -> None:
    with pytest.raises(ValidationError, match="not ordered"):
        Interval(low_ms=3, mid_ms=2, high_ms=4, basis="predicted")


def test_verdict_follows_the_gates() -> None:
    report, _ = example()
    assert report.verdict == "failed"
    assert [(t, g.name) for t, g in report.failed_gates] == [("openvino-cpu-f32", "latency.min_speedup")]
    with pytest.raises(ValidationError, match="verdict"):
        Report.model_validate(report.model_dump() | {"verdict": "passed"})


def test_only_a_missed_speed_up_is_no_gain() -> None:
    """A student that keeps the teacher's accuracy but is not faster is not broken: there is nothing to win by it."""
    slow = Gate(name="latency min_speedup 3 over teacher-openvino-f32", passed=False, value=1.4, limit=3)
    worse = Gate(name="f1 max_drop 0.02", passed=False, value=0.1, limit=0.02)
    kept = worse.model_copy(update={"passed": True, "value": 0.01})
    words = [[], [kept], [kept, slow], [worse, slow], [slow.model_copy(update={"value": None})]]
    found = [TargetRecord(**TARGET, provenance="unavailable", reason="x", gates=gates).word for gates in words]
    assert found == ["no gates", "passed", "rejected: no gain", "failed", "failed"]


def test_samples_are_not_stored() -> None:
    measured = measure(lambda _: None, {}, seconds=0.01, warmup=0, min_runs=5)
    assert measured.samples_ms
    target = TargetRecord(**TARGET, provenance="measured", latency_ms=measured.latency_ms, measurement=measured)
    assert target.measurement is not None
    assert target.measurement.samples_ms == []


def test_broken_file_names_the_field(tmp_path: Path) -> None:
    save_report(example()[0], tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    value["targets"][0]["gates"][0]["limit"] = "high"
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(RequestError, match=r"targets\.0\.gates\.0\.limit"):
        load_report(tmp_path / "report.json")
    with pytest.raises(RequestError, match="no such file"):
        load_report(tmp_path / "none.json")
