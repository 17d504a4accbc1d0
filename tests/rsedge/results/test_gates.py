"""Gates: what passes, what fails, what is undecided and what would decide it, and what cannot be taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.documents import Document, Place
from rsedge.data.metrics.confusion import Confusion, block_tables
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.figures import statistics_of
from rsedge.data.metrics.statistics import Estimate, Statistics, ratio
from rsedge.data.metrics.table import METRICS, Metric
from rsedge.data.metrics.verdict import NO_GATES, Gate, Verdict, gate_line, limit_text, more_text, statement
from rsedge.devices.measure.load import Load
from rsedge.devices.measure.protocol import LatencyMs, Measurement
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import GateSection, Recipe
from rsedge.results.gates import Facts, check_on_selection, judge

TARGET = "openvino-cpu-int8"


def figures(metric: str, own: float, teacher: float | None, se: float = 0.0, n: int = 20) -> Evidence:
    def spread(value: float) -> Estimate:
        return Estimate(value=value, interval=(value - 2 * se, value + 2 * se), se=se)

    drop = None if teacher is None else spread(teacher - own)
    relative = None if not teacher else spread((teacher - own) / teacher)
    return Evidence(
        metric=metric, unit="blocks", n=n, own=spread(own), teacher=teacher, drop=drop, relative_drop=relative
    )


def facts(se: float = 0.0, **more: Any) -> Facts:
    found = {"kappa": (0.79, 0.8), "accuracy": (0.89, 0.9), "miou": (0.6, 0.7), "agreement": (0.96, None)}
    return Facts(
        evidence={name: figures(name, *pair, se=se) for name, pair in found.items()}, size_bytes=1000,
        memory=(5000, 5000, 5000), **more,
    )  # fmt: skip


def measured(ms: float, turns: list[float] | None = None) -> Measurement:
    return Measurement(
        device="cpu", runtime="openvino", runtime_version="1", precision="f32", warmup=1, n=20,
        latency_ms=LatencyMs(p50=ms, p90=ms, p99=ms), throughput_per_s=1, throughput_method="1/mean", load_average=0,
        noisy=False, drift=1.0, turns_ms=turns or [ms] * 6,
    )  # fmt: skip


def test_a_busy_machine_is_judged_by_processor_time_and_says_so() -> None:
    busy = {"load": Load(others=0.5), "processor_ms": [4.0] * 6}
    teacher = measured(10).model_copy(update={**busy, "processor_ms": [20.0] * 6})
    found = judge(
        GateSection(metric="latency", min_speedup=4.5, over="teacher-openvino-f32"), TARGET,
        facts(measured=measured(1).model_copy(update=busy), baselines={"teacher-openvino-f32": teacher}),
    )  # fmt: skip
    assert (found.value, found.outcome) == (pytest.approx(5), "passed")
    assert "by processor time: other processes took 50% of the processors" in (found.note or "")


@pytest.mark.parametrize(
    ("gate", "outcome", "value"),
    [
        ({"metric": "kappa", "max_drop": 0.011}, "passed", 0.01),
        ({"metric": "kappa", "max_drop": 0.009}, "failed", 0.01),
        ({"metric": "miou", "max_relative_drop": 0.1}, "failed", 1 / 7),
        ({"metric": "accuracy", "min": 0.85}, "passed", 0.89),
        ({"metric": "agreement", "min": 0.97}, "failed", 0.96),
        ({"metric": "size", "max": 1000}, "passed", 1000),
        ({"metric": "memory", "max": 4999}, "failed", 5000),
        ({"metric": "latency", "max": 10}, "passed", 4),
        ({"metric": "latency", "min_speedup": 5, "over": "teacher-openvino-f32"}, "passed", 10),
        ({"metric": "latency", "min_speedup": 11, "over": "teacher-openvino-f32"}, "failed", 10),
    ],
)
def test_constraints(gate: dict[str, Any], outcome: str, value: float) -> None:
    section = GateSection.model_validate(gate)
    about = facts(measured=measured(4), baselines={"teacher-openvino-f32": measured(40)})
    found = judge(section, TARGET, about)
    assert (found.outcome, found.passed, found.target) == (outcome, outcome == "passed", TARGET)
    assert found.value == pytest.approx(value)
    assert (found.name, found.metric, found.constraint, found.limit) == (
        section.name, section.metric, section.constraint, section.limit,
    )  # fmt: skip


def test_two_blocks_without_an_error_decide_nothing() -> None:
    right = Statistics("blocks", {"agreement": ratio([5, 5], [5, 5])})
    found = judge(GateSection(metric="agreement", min=0.9), TARGET, Facts(evidence=evidence(right, right)))
    assert (found.outcome, found.leans, found.n, found.more_needed) == ("undecided", "passed", 2, 6)
    assert "2 blocks that do not differ" in gate_line(found) and "about 6 more blocks" in gate_line(found)


@pytest.mark.parametrize(
    ("peaks", "outcome"),
    [
        ((4900, 4950, 4990), "undecided"),
        ((4400, 4405, 4410), "passed"),
        ((5900, 5905, 5910), "failed"),
        ((4900,), "undecided"),
    ],
)
def test_memory_is_decided_by_the_spread_of_its_readings(peaks: tuple[int, ...], outcome: str) -> None:
    found = judge(GateSection(metric="memory", max=5000), TARGET, Facts(memory=peaks))
    assert (found.outcome, found.n, found.unit) == (outcome, len(peaks), "processes")


@pytest.mark.parametrize(("limit", "leans"), [(0.02, "passed"), (0.005, "failed")])
def test_an_interval_over_the_limit_is_undecided_and_says_what_would_decide(limit: float, leans: str) -> None:
    found = judge(GateSection(metric="kappa", max_drop=limit), TARGET, facts(se=0.03))
    assert (found.outcome, found.leans, found.passed) == ("undecided", leans, leans == "passed")
    assert found.interval == pytest.approx((-0.05, 0.07)) and (found.n, found.unit) == (20, "blocks")
    # The standard error must fall under |value - limit| / 1.96, or a little more (Student): n grows with the square of their ratio.
    assert found.more_needed == pytest.approx(20 * ((1.96 * 0.03 / abs(0.01 - limit)) ** 2 - 1), abs=4)
    assert f"about {found.more_needed:,} more blocks would decide" in gate_line(found)


@given(st.integers(12, 40), st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_as_many_more_blocks_as_it_says_do_decide(blocks: int, seed: int) -> None:
    """The same blocks so many times over: value and spread stay, the interval shrinks."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, blocks * 60)
    unit = np.repeat(np.arange(blocks), 60)
    hard = np.repeat(rng.uniform(0.02, 0.25, blocks), 60)
    teacher = np.where(rng.random(len(labels)) < hard, 1 - labels, labels)
    student = np.where(rng.random(len(labels)) < hard + 0.03, 1 - labels, labels)
    tables = [block_tables(labels, told, unit, blocks, 2) for told in (student, teacher)]

    def gate(times: int) -> Gate:
        parts = (
            Statistics("blocks", statistics_of(Confusion("map", np.tile(t, (times, 1, 1)), ("a", "b")))) for t in tables
        )
        return judge(GateSection(metric="kappa", max_drop=0.05), TARGET, Facts(evidence=evidence(*parts)))

    once = gate(1)
    if once.outcome != "undecided" or once.more_needed is None or once.more_needed > 40 * blocks:
        return
    times = -(-(blocks + once.more_needed) // blocks)
    assert gate(2 * times).outcome == once.leans


def test_one_block_leaves_it_undecided() -> None:
    alone = Evidence(metric="kappa", unit="blocks", n=1, own=Estimate(value=0.7), teacher=0.8, drop=Estimate(value=0.1),
                     relative_drop=Estimate(value=0.125), note="one block has no spread")  # fmt: skip
    found = judge(GateSection(metric="kappa", max_drop=0.2), TARGET, Facts(evidence={"kappa": alone}))
    assert (found.outcome, found.leans, found.interval) == ("undecided", "passed", None)
    assert "one block" in gate_line(found) and more_text(found) == "more blocks are needed to decide"


def test_a_small_test_set_is_said_in_the_note_of_what_rests_on_it() -> None:
    about = Facts(
        evidence={name: figures(name, 0.7, 0.8) for name in ("kappa", "f1_crossval")},
        note="test: 3 blocks", folds_note="calibrated alone",
    )  # fmt: skip
    kappa, folds = (judge(GateSection(metric=m, max_drop=0.2), TARGET, about) for m in ("kappa", "f1_crossval"))
    assert "test: 3 blocks" in (kappa.note or "") and "blocks" not in (folds.note or "")
    assert "calibrated alone" in (folds.note or "") and "calibrated" not in (kappa.note or "")


def test_an_undefined_kappa_is_not_taken_and_fails() -> None:
    labels, unit = np.zeros(40, int), np.arange(40) // 10
    both = Statistics("blocks", statistics_of(Confusion("map", block_tables(labels, labels, unit, 4, 2), ("a", "b"))))
    found = judge(GateSection(metric="kappa", max_drop=0.5), TARGET, Facts(evidence=evidence(both, both)))
    assert (found.outcome, found.passed, found.value) == ("not taken", False, None)
    assert "one class" in (found.note or "") and not Verdict.of([found]).holds
    assert gate_line(found).count("taken") == 1


@pytest.mark.parametrize(
    ("gate", "note"),
    [
        ({"metric": "kappa", "max_drop": 1}, "no labels"),
        ({"metric": "f1_crossval", "min": 0}, "no cross-validation"),
        ({"metric": "first_token_ms", "max": 1}, "not this machine"),
        ({"metric": "memory", "max": 1e12}, "not this machine"),
        ({"metric": "size", "max": 1e12}, "no size is known"),
        ({"metric": "latency", "max": 1e9}, "neither measured nor predicted"),
        ({"metric": "latency", "min_speedup": 1, "over": "teacher-openvino-f32"}, "not measured in one run"),
    ],
)
def test_what_was_not_taken_fails_and_says_why(gate: dict[str, Any], note: str) -> None:
    found = judge(GateSection.model_validate(gate), TARGET, Facts())
    assert (found.outcome, found.passed, found.value) == ("not taken", False, None)
    assert note in (found.note or "")
    line = gate_line(found)
    assert line == f"not taken: {statement(found)}; {found.note}" and line.count("taken") == 1


def test_a_predicted_latency_is_judged_by_its_range() -> None:
    about = Facts(predicted={"low_ms": 1.0, "mid_ms": 2.0, "high_ms": 4.0, "basis": "predicted"})
    cases = [(5.0, "passed", None), (3.0, "undecided", "passed"), (1.5, "undecided", "failed"), (0.5, "failed", None)]
    for limit, outcome, leans in cases:
        found = judge(GateSection(metric="latency", max=limit), TARGET, about)
        assert (found.outcome, found.leans, found.value) == (outcome, leans, 2.0)
        assert "predicted" in (found.note or "")
        assert more_text(found) == ("a measurement on the device would decide" if leans else "")


def test_latency_is_judged_by_the_interval_of_its_turns() -> None:
    noisy = [4.0, 9.0, 5.0, 12.0, 4.2, 8.0]
    steady = judge(GateSection(metric="latency", max=5), TARGET, Facts(measured=measured(4, [4.0, 4.1, 4.05, 4.2])))
    shaky = judge(GateSection(metric="latency", max=5), TARGET, Facts(measured=measured(4.5, noisy)))
    assert (steady.outcome, shaky.outcome, shaky.leans, shaky.unit) == ("passed", "undecided", "passed", "turns")


def test_figures_are_written_by_metric_and_constraint() -> None:
    about = facts(measured=measured(4), baselines={"teacher-openvino-f32": measured(40)})
    for gate, limit, line in (
        ({"metric": "kappa", "max_drop": 0.04}, "≤ 0.040", "passed: Cohen's kappa at most 0.040 under the teacher's: 0.010"),
        ({"metric": "agreement", "min": 0.95}, "≥ 95.0 %", "passed: agreement at least 95.0 %: 96.0 %"),
        ({"metric": "agreement", "min": 0.9995}, "≥ 99.95 %", "failed: agreement at least 99.95 %: 96.00 %"),
        ({"metric": "kappa", "max_relative_drop": 0.0205}, "≤ 2.05 %",
         "passed: Cohen's kappa at most 2.05 % of the teacher's lower: 1.25 %"),
        ({"metric": "latency", "max": 10}, "≤ 10.0 ms", "passed: latency at most 10.0 ms: 4.00 ms"),
        ({"metric": "latency", "min_speedup": 15, "over": "teacher-openvino-f32"}, "≥ 15.0×",
         "failed: at least 15.0× as fast as teacher-openvino-f32: 10.0×"),
        ({"metric": "size", "max": 5_000_000}, "≤ 5.00 MB", "passed: size at most 5.00 MB: 1.00 kB"),
    ):  # fmt: skip
        found = judge(GateSection.model_validate(gate), TARGET, about)
        assert limit_text(found) == limit
        assert gate_line(found).startswith(line)


def test_the_headline_says_what_rests_on_a_prediction() -> None:
    about = facts(predicted={"low_ms": 1.0, "mid_ms": 2.0, "high_ms": 4.0, "basis": "predicted"})
    asked = (GateSection(metric="latency", max=5), GateSection(metric="kappa", max_drop=0.02))
    latency, kappa = (judge(one, TARGET, about) for one in asked)
    assert Verdict.of([latency]).headline == "the gate passed on a predicted latency"
    assert Verdict.of([latency, kappa]).headline == "all 2 gates passed, 1 of them on a predicted latency"
    assert Verdict.of([kappa]).headline == "the gate passed"


def test_a_noisy_measurement_says_so_in_the_gate() -> None:
    noisy, quiet = (measured(4).model_copy(update={"noisy": is_noisy}) for is_noisy in (True, False))
    over = "teacher-openvino-f32"
    for gate in (GateSection(metric="latency", max=5), GateSection(metric="latency", min_speedup=0.5, over=over)):
        for found, told in ((noisy, True), (quiet, False)):
            note = judge(gate, TARGET, Facts(measured=found, baselines={over: quiet})).note
            assert ("noisy: other work loaded this machine" in (note or "")) == told


@given(st.sampled_from([row for row in METRICS.values() if "min" in row.constraints]), st.floats(1.001, 1e6))
def test_a_floor_above_what_a_metric_can_be_is_refused(row: Metric, limit: float) -> None:
    if row.highest is None:
        assert GateSection(metric=row.name, min=limit).limit == limit
    else:
        with pytest.raises(ValueError, match=r"never holds; shares go from 0 to 1"):
            GateSection(metric=row.name, min=limit)
        assert GateSection(metric=row.name, min=row.highest).limit == row.highest


def test_verdicts() -> None:
    passed, failed = (judge(GateSection(metric="kappa", max_drop=d), TARGET, facts()) for d in (0.02, 0.005))
    leaning, sinking = (judge(GateSection(metric="kappa", max_drop=d), TARGET, facts(se=0.03)) for d in (0.02, 0.005))
    slow = judge(
        GateSection(metric="latency", min_speedup=99, over="teacher-openvino-f32"), TARGET,
        Facts(measured=measured(4), baselines={"teacher-openvino-f32": measured(40)}),
    )  # fmt: skip
    for gates, word, holds, decided, start in (
        ([], "no gates", True, True, NO_GATES),
        ([passed, passed], "passed", True, True, "all 2 gates passed"),
        ([passed, failed], "failed", False, True, "failed: 1 of 2 gates"),
        ([passed, leaning], "undecided, leans to passed", True, False, "undecided, leans to passed: 1 of 2 gates undecided; about"),
        ([leaning, sinking], "undecided, leans to failed", False, False, "undecided, leans to failed: 2 of 2"),
        ([failed, leaning], "failed", False, False, "failed: 1 of 2 gates; 1 of 2 gates undecided"),
        ([passed, slow], "rejected: no gain", False, True, "failed: 1 of 2"),
    ):  # fmt: skip
        verdict = Verdict.of(gates)
        assert (verdict.word, verdict.holds, verdict.decided) == (word, holds, decided)
        assert verdict.headline.startswith(start) and verdict.proven == (word == "passed")
        assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_record_that_contradicts_itself_is_refused() -> None:
    gate = judge(GateSection(metric="kappa", max_drop=0.005), TARGET, facts()).model_dump()
    for change in ({"passed": True}, {"name": "kappa min 1"}, {"leans": "passed"}, {"value": None}):
        with pytest.raises(ValueError, match=r"says|lean|not taken"):
            Gate.model_validate(gate | change)
    for change in ({"value": 0.001}, {"interval": (0.0, 0.1)}, {"limit": 0.5, "name": "kappa max_drop 0.5"}):
        with pytest.raises(ValueError, match="value and interval say otherwise"):
            Gate.model_validate(gate | change)
    better = gate | {"outcome": "passed", "passed": True}
    with pytest.raises(ValueError, match="value and interval say otherwise"):
        Gate.model_validate(better)
    verdict = Verdict.of([Gate.model_validate(gate)]).model_dump()
    with pytest.raises(ValueError, match="the gates say 'failed'"):
        Verdict.model_validate(verdict | {"outcome": "passed"})


def recipe(*gates: dict[str, Any]) -> Recipe:
    value = {
        "name": "t", "teacher": {"name": "ukis-csmask-4b-l2a"}, "gates": list(gates), "steps": ["distill", "quantize"],
        "data": {"train": [{"source": "spyndex-sentinel2"}], "test": {"source": "spyndex-sentinel2"}},
        "targets": [TARGET, "openvino-cpu-f32"],
    }  # fmt: skip
    return check_document(Document(value, {(): Place("test")}))


def test_the_search_keeps_a_margin_from_every_gate_of_its_target() -> None:
    gates = ({"metric": "kappa", "max_drop": 0.04}, {"metric": "agreement", "min": 0.95},
             {"metric": "accuracy", "min": 0.99, "target": "openvino-cpu-f32"}, {"metric": "latency", "max": 0.001},
             {"metric": "size", "max": 2000})  # fmt: skip
    found = check_on_selection(recipe(*gates), TARGET, facts(se=0.005).evidence, size_bytes=1000)
    assert found.holds and found.shortfall == 0 and not found.shortfalls and not found.unchecked
    tight = check_on_selection(recipe(*gates), TARGET, facts(se=0.02).evidence, size_bytes=4000)
    assert not tight.holds and len(tight.shortfalls) == 2 and tight.shortfall == pytest.approx(1.0)
    assert "agreement at least 95.0 %: 96.0 %" in tight.text and "size at most 2.00 kB: 4.00 kB" in tight.text
    assert check_on_selection(recipe(*gates), TARGET, facts(se=0.02).evidence, margin=0).holds
    worse, bad = (
        check_on_selection(recipe(*gates), TARGET, {"kappa": figures("kappa", own, 0.8)}).shortfall
        for own in (0.75, 0.7)
    )
    assert 0 < worse < bad


def test_what_selection_cannot_tell_is_said() -> None:
    gates = {"metric": "kappa", "max_drop": 0.04}, {"metric": "agreement", "min": 0.9}
    found = check_on_selection(recipe(*gates), TARGET, {"agreement": figures("agreement", 0.95, None)})
    assert found.holds and found.unchecked == ("kappa max_drop 0.04: the data have no labels",)


def test_a_network_without_the_figure_that_its_teacher_has_is_not_taken() -> None:
    lost = Evidence(
        metric="kappa", unit="blocks", n=9, own=Estimate(value=None), teacher=0.8, drop=Estimate(value=None),
        relative_drop=Estimate(value=None), note="one class alone",
    )  # fmt: skip
    found = check_on_selection(recipe({"metric": "kappa", "max_drop": 0.04}), TARGET, {"kappa": lost})
    assert not found.holds and found.missed == ("kappa max_drop 0.04",) and "one class alone" in found.text
    assert found.shortfall > 1


@pytest.mark.parametrize("value", [0.02, 0.02 + 1e-17, 0.02 - 1e-12, 5e-324])
def test_a_value_at_the_limit_promises_no_number_of_blocks(value: float) -> None:
    limit = 0.0 if value < 1e-300 else 0.02
    shown = figures("kappa", 0.8 - value, 0.8).model_copy(
        update={"drop": Estimate(value=value, interval=(value - 0.2, value + 0.2), se=0.1)}
    )
    found = judge(GateSection(metric="kappa", max_drop=limit), TARGET, Facts(evidence={"kappa": shown}))
    assert found.outcome == "undecided" and (found.more_needed or 0) > 10**6
    assert more_text(found) == "no feasible number of blocks would decide: the value is at the limit"
