"""Gates: what passes, what fails, and what cannot be taken."""

from __future__ import annotations

from typing import Any

import pytest

from rsedge.devices.measure import LatencyMs, Measurement
from rsedge.gates import judge
from rsedge.recipe import GateSection

TEACHER = {"kappa": 0.8, "accuracy": 0.9, "miou": 0.7}
FOUND: dict[str, Any] = {
    "metrics": {"kappa": 0.79, "accuracy": 0.89, "miou": 0.6},
    "agreement": 0.96,
    "size_bytes": 1000,
    "peak_rss_bytes": 5000,
}


def measured(ms: float) -> Measurement:
    return Measurement(
        device="cpu", runtime="openvino", runtime_version="1", precision="f32", warmup=1, n=20,
        latency_ms=LatencyMs(p50=ms, p90=ms, p99=ms), throughput_per_s=1, throughput_method="1/mean", load_average=0,
        noisy=False, drift=1.0, turns_ms=[ms] * 6,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "passed", "value"),
    [
        ({"metric": "kappa", "max_drop": 0.011}, True, 0.01),
        ({"metric": "kappa", "max_drop": 0.009}, False, 0.01),
        ({"metric": "miou", "max_relative_drop": 0.1}, False, 1 / 7),
        ({"metric": "accuracy", "min": 0.85}, True, 0.89),
        ({"metric": "agreement", "min": 0.97}, False, 0.96),
        ({"metric": "size", "max": 1000}, True, 1000),
        ({"metric": "memory", "max": 4999}, False, 5000),
        ({"metric": "latency", "max": 10}, True, 4),
        ({"metric": "latency", "min_speedup": 5, "over": "teacher-openvino-f32"}, True, 10),
        ({"metric": "latency", "min_speedup": 11, "over": "teacher-openvino-f32"}, False, 10),
    ],
)
def test_constraints(gate: dict[str, Any], passed: bool, value: float) -> None:
    section = GateSection.model_validate(gate)
    found = judge(section, FOUND, TEACHER, measured(4), {"teacher-openvino-f32": measured(40)})
    assert found.passed is passed
    assert found.value == pytest.approx(value)
    assert found.name == section.name


@pytest.mark.parametrize(
    ("gate", "note"),
    [
        ({"metric": "kappa", "max_drop": 1}, "no labels"),
        ({"metric": "memory", "max": 1e12}, "was not taken"),
        ({"metric": "latency", "max": 1e9}, "neither measured nor predicted"),
        ({"metric": "latency", "min_speedup": 1, "over": "teacher-openvino-f32"}, "not measured in one run"),
    ],
)
def test_what_was_not_taken_fails_and_says_why(gate: dict[str, Any], note: str) -> None:
    found = judge(GateSection.model_validate(gate), {"metrics": {}}, {}, None, {})
    assert not found.passed
    assert found.value is None
    assert note in (found.note or "")


def test_a_predicted_latency_passes_only_with_its_whole_interval() -> None:
    facts = {"interval": {"low_ms": 1.0, "mid_ms": 2.0, "high_ms": 4.0, "basis": "predicted"}}
    for limit, passed in ((5.0, True), (3.0, False)):
        found = judge(GateSection(metric="latency", max=limit), facts, {}, None, {})
        assert found.passed is passed
        assert "predicted" in (found.note or "")


def test_a_worse_value_that_is_not_a_number_fails() -> None:
    found = judge(GateSection(metric="agreement", min=0.5), {"agreement": float("nan")}, {}, None, {})
    assert not found.passed
