"""report.json: round trip, and records that contradict themselves are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from rsedge.data.errors import RequestError
from rsedge.devices.measure.protocol import LatencyMs, measure
from rsedge.reports.schema import Colour, Interval, Report, TargetRecord, load_report, save_report
from rsedge.runtimes.bundle.manifest import Manifest
from tests.real_run import F32, INT8, MISSED, RealReport

TARGET = {"name": "openvino-cpu-int8", "runtime": "openvino", "device": "cpu", "precision": "int8"}
LATENCY = LatencyMs(p50=1, p90=2, p99=3)
INTERVAL = Interval(low_ms=1, mid_ms=2, high_ms=3, basis="predicted, test")


def test_round_trip(ran: RealReport, tmp_path: Path) -> None:
    assert load_report(ran.folder / "report.json") == ran.report
    save_report(ran.report, tmp_path / "report.json")
    assert load_report(tmp_path / "report.json") == ran.report


def test_contract_names(ran: RealReport) -> None:
    """The names that readers of report.json are promised."""
    found = json.loads((ran.folder / "report.json").read_text())
    assert {"teacher", "stages", "targets", "environment", "data"} <= set(found)
    assert {"params", "macs", "size_bytes", "latency_ms", "metrics"} <= set(found["teacher"])
    assert {"p50", "p90", "p99"} <= set(found["teacher"]["latency_ms"])
    assert {"name", "outcome", "before", "after", "seconds", "reason"} <= set(found["stages"][0])
    assert {"manifest_sha256", "splits"} <= set(found["data"])
    wanted = "name runtime device precision provenance latency_ms interval throughput_per_s size_bytes peak_rss_bytes"
    assert {*wanted.split(), "metrics", "agreement", "parity", "gates"} <= set(found["targets"][0])
    gate = found["targets"][0]["gates"][0]
    assert {"name", "passed", "value", "limit", "outcome", "interval", "n", "unit", "leans", "more_needed"} <= set(gate)
    assert {"verdict", "headline", "strict"} <= set(found)


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


def test_the_verdict_follows_the_gates(ran: RealReport) -> None:
    report = ran.report
    assert (
        report.verdict == "failed"
        and report.headline is not None
        and report.headline.startswith(f"failed: {MISSED} of {sum(len(t.gates) for t in report.targets)} gates")
    )
    assert [(g.target, g.metric) for g in report.judged.missed] == [(INT8, "latency"), (F32, "size")]
    for change in ({"verdict": "passed"}, {"headline": "all gates passed"}):
        with pytest.raises(ValidationError, match=f"{next(iter(change))} says"):
            Report.model_validate(report.model_dump() | change)


def test_bundles_carry_the_verdict_that_the_report_shows(ran: RealReport) -> None:
    for target in ran.report.targets:
        path = ran.folder / "bundles" / target.name / "manifest.json"
        verdict = Manifest.from_bytes(path.read_bytes(), path).verdict
        assert verdict == target.judged and target.gates


def test_only_a_missed_speed_up_is_no_gain(ran: RealReport) -> None:
    """A student that keeps the teacher's accuracy but is not faster is not broken: there is nothing to win by it."""
    assert [t.judged.word for t in ran.report.targets[:3]] == ["rejected: no gain", "failed", "passed"]


def test_without_gates_nothing_is_said_to_have_passed(ran: RealReport) -> None:
    bare = [t.model_copy(update={"gates": []}) for t in ran.report.targets]
    values = ran.report.model_dump() | {"targets": [t.model_dump() for t in bare], "verdict": None, "headline": None}
    found = Report.model_validate(values)
    assert (found.verdict, found.headline) == ("no gates", "no gates: nothing was judged")
    assert {t.judged.word for t in found.targets} == {"no gates"}


def test_samples_are_not_stored() -> None:
    measured = measure(lambda _: None, {}, seconds=0.01, warmup=0, min_runs=5)
    assert measured.samples_ms
    target = TargetRecord(**TARGET, provenance="measured", latency_ms=measured.latency_ms, measurement=measured)
    assert target.measurement is not None
    assert target.measurement.samples_ms == []


def test_broken_file_names_the_field(ran: RealReport, tmp_path: Path) -> None:
    value = json.loads((ran.folder / "report.json").read_text())
    value["targets"][0]["gates"][0]["limit"] = "high"
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(RequestError, match=r"targets\.0\.gates\.0\.limit"):
        load_report(tmp_path / "report.json")
    with pytest.raises(RequestError, match="no such file"):
        load_report(tmp_path / "none.json")


@pytest.mark.parametrize("colour", ["red", "#12345", "#1234567", "#123456\n", "#123456;background:url(//x)", "url(#a)"])
def test_a_colour_is_six_digits(colour: str) -> None:
    """It goes into a style as it is."""
    adapter: TypeAdapter[str] = TypeAdapter(Colour)
    assert adapter.validate_python("#00aaFF") == "#00aaFF"
    with pytest.raises(ValidationError):
        adapter.validate_python(colour)
