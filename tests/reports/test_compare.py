"""Two runs side by side: what changed, what cannot be compared and why, and the command that shows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsedge.cli.main import run_app
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import Gate
from rsedge.reports.compare import Change, Comparison, Figure, compare, gate_text
from rsedge.reports.schema import Interval, Report, TargetRecord
from tests.real_run import F32, INT8, JETSON, MISSED, RealReport

Told = dict[tuple[str, str], Change]


def told(found: Comparison) -> Told:
    return {(c.target, c.figure): c for c in found.changes}


def changed(report: Report, **fields: Any) -> Report:
    return report.model_copy(update=fields)


def with_target(report: Report, name: str, **fields: Any) -> Report:
    return changed(report, targets=[t.model_copy(update=fields) if t.name == name else t for t in report.targets])


def target(report: Report, name: str) -> TargetRecord:
    return next(t for t in report.targets if t.name == name)


def test_a_run_against_itself_is_equal_everywhere(ran: RealReport) -> None:
    found = compare(ran.report, ran.report)
    assert found.differences == () and found.targets == [t.name for t in ran.report.targets]
    assert {c.direction for c in found.changes} == {"equal"} and {c.ratio for c in found.changes} <= {1.0, None}
    assert {"kappa", "agreement", "latency", "throughput_per_s", "size", "memory", "params", "macs"} <= {
        c.figure for c in found.changes if c.target == INT8
    }
    assert len(found.gates) == sum(len(t.gates) for t in ran.report.targets)
    assert all(one.before == one.after for one in found.gates)


def test_ratios_have_the_direction_of_their_metric(ran: RealReport) -> None:
    base = target(ran.report, INT8)
    assert base.latency_ms is not None and base.size_bytes is not None and base.throughput_per_s is not None
    faster = base.latency_ms.model_copy(update={"p50": base.latency_ms.p50 / 2})
    other = with_target(
        ran.report, INT8, latency_ms=faster, size_bytes=2 * base.size_bytes,
        throughput_per_s=2 * base.throughput_per_s, metrics=base.metrics | {"accuracy": base.metrics["accuracy"] / 4},
    )  # fmt: skip
    found = told(compare(ran.report, other))
    for figure, ratio, direction in (("latency", 0.5, "better"), ("size", 2, "worse"), ("throughput_per_s", 2, "better"),
                                     ("accuracy", 0.25, "worse")):  # fmt: skip
        change = found[INT8, figure]
        assert (change.ratio, change.direction) == (pytest.approx(ratio), direction)
        assert f"×, {direction}" in change.text
    assert found[F32, "latency"].direction == "equal"


def test_what_the_runs_do_not_share_is_said_and_not_compared(ran: RealReport) -> None:
    report = ran.report
    assert report.environment is not None
    for change in ({"cpu": "another"}, {"threads": 64}):
        moved = compare(report, changed(report, environment=report.environment.model_copy(update=change)))
        found = told(moved)
        assert all(found[INT8, f].reason == "other machine" for f in ("latency", "throughput_per_s", "memory"))
        assert found[INT8, "size"].ratio == found[INT8, "kappa"].ratio == found[JETSON, "latency"].ratio == 1.0
        assert any(text.startswith("other machine: ") and "->" in text for text in moved.differences)
    unknown = told(compare(report, changed(report, environment=None)))
    assert unknown[INT8, "latency"].reason == "it is not known on what machine"
    other_data = report.data.model_copy(update={"manifest_sha256": "another"})
    teacher = report.teacher
    for fields, kappa, agreement in (
        ({"data": other_data}, "other data", "other data"),
        ({"teacher": teacher.model_copy(update={"name": "another"})}, None, "other teacher"),
        ({"teacher": teacher.model_copy(update={"metrics": teacher.metrics | {"kappa": 0.1}})}, None,
         "the teacher's own figures differ"),
    ):  # fmt: skip
        found = told(compare(report, changed(report, **fields)))
        assert (found[INT8, "kappa"].reason, found[INT8, "agreement"].reason) == (kappa, agreement)
        assert found[INT8, "latency"].comparable and found[INT8, "size"].comparable and found[INT8, "params"].comparable


def test_predictions_are_not_set_against_measurements(ran: RealReport) -> None:
    guess = Interval(low_ms=1, mid_ms=2, high_ms=4, basis="another method")
    predicted = {"provenance": "predicted", "latency_ms": None, "interval": guess, "measurement": None}
    change = told(compare(ran.report, with_target(ran.report, INT8, **predicted)))[INT8, "latency"]
    assert (change.reason, change.ratio) == ("measured before, predicted after", None)
    assert change.after is not None and change.after.text("latency") == "predicted 1.00 ms to 4.00 ms"
    same = told(compare(ran.report, ran.report))[JETSON, "latency"]
    assert same.text == "1.00×, equal, predicted"
    other = told(compare(ran.report, with_target(ran.report, JETSON, interval=guess)))[JETSON, "latency"]
    assert other.reason is not None and other.reason.startswith("predicted from other evidence")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_turned_round_it_says_the_opposite(ran: RealReport, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.sampled_from(ran.report.targets), unique_by=lambda t: t.name, min_size=1))
    grown = [
        t.model_copy(update={
            "size_bytes": data.draw(st.integers(1, 10**9)), "gates": t.gates[data.draw(st.integers(0, 2)) :],
            "metrics": t.metrics | {"kappa": data.draw(st.none() | st.floats(-1, 1))},
        }) for t in targets
    ]  # fmt: skip
    other = changed(ran.report, targets=grown)
    there, back = compare(ran.report, other), told(compare(other, ran.report))
    opposite = {"better": "worse", "worse": "better", "equal": "equal", None: None}
    assert {(c.target, c.figure) for c in there.changes} == set(back)
    for c in there.changes:
        turned = back[c.target, c.figure]
        assert (c.before, c.after, c.comparable) == (turned.after, turned.before, turned.comparable)
        assert turned.direction == opposite[c.direction] and (c.direction is None) == (not c.comparable)
        if c.ratio is not None:
            assert turned.ratio == pytest.approx(1 / c.ratio)
        elif c.comparable:
            assert c.before is not None and c.after is not None and min(c.before.value, c.after.value) <= 0
        assert bool(c.text) and (c.figure not in METRICS or c.higher == METRICS[c.figure].higher)
    assert len(there.gates) == sum(len(t.gates) for t in ran.report.targets) or len(targets) < len(ran.report.targets)


def test_a_gate_whose_limit_changed_is_another_gate(ran: RealReport) -> None:
    first, *rest = target(ran.report, INT8).gates
    values = first.model_dump(exclude={"name", "passed"}) | {"limit": first.limit + 1}
    other = Gate.model_validate(values)
    found = [
        g for g in compare(ran.report, with_target(ran.report, INT8, gates=[other, *rest])).gates if g.target == INT8
    ]
    assert [(g.before, g.after) for g in found] == [(first, None), *((g, g) for g in rest), (None, other)]
    missing = Gate.model_validate(
        values
        | {"value": None, "interval": None, "outcome": "not taken", "leans": None, "note": "the data have no labels"}
    )
    assert gate_text(missing) == "not taken; the data have no labels" and gate_text(None) == "–"
    assert gate_text(first).startswith(f"{first.word}; ") and "95 % interval" in gate_text(first)


# -- the command ----------------------------------------------------------------------------------------------------


def cli(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = run_app(["compare", *map(str, words)])
    return code, *capsys.readouterr()


def test_the_command_shows_every_target_gate_and_verdict(
    ran: RealReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = target(ran.report, INT8)
    assert base.size_bytes is not None
    other = with_target(ran.report, INT8, size_bytes=base.size_bytes // 2)
    (tmp_path / "report.json").write_text(json.dumps(other.model_dump(mode="json") | {"name": "a\x1b[2Jname"}))
    code, out, _ = cli(capsys, ran.folder, tmp_path / "report.json")
    assert code == 0 and out.count(f"failed: {MISSED} of") == 2 and "\x1b" not in out and r"a\x1b[2Jname" in out
    for one in ran.report.targets:
        assert f"\n{one.name}\n" in out
    assert "0.5" in next(line for line in out.splitlines() if line.startswith("size")) and "Cohen's kappa" in out
    assert "at least 1,000× as fast as teacher-openvino-f32" in out and "predicted" in out
    code, out, _ = cli(capsys, ran.folder, tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["before"]["verdict"] == found["against"][0]["after"]["verdict"] == "failed"
    (int8,) = (t for t in found["against"][0]["targets"] if t["name"] == INT8)
    (size,) = (f for f in int8["figures"] if f["figure"] == "size")
    assert (size["better"], size["direction"], size["comparable"]) == ("lower", "better", True)
    assert size["ratio"] == pytest.approx(0.5, abs=0.01) and size["before"]["value"] == base.size_bytes
    assert [g["before"]["outcome"] for g in int8["gates"]] == [g.outcome for g in base.gates]


def test_what_is_no_run_is_refused_in_words(
    ran: RealReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(ran.folder / "recipe.resolved.yaml", tmp_path / "half")
    (tmp_path / "empty").mkdir()
    written = json.loads((ran.folder / "report.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(written | {"schema_version": 2, "rsedge_version": "9.0"}))
    (tmp_path / "list.json").write_text("[1]")
    for path, words in (
        (tmp_path / "none", "none: no such file"),
        (tmp_path / "half", "no report yet"),
        (tmp_path / "empty", "no run folder: it holds no report.json"),
        (ran.folder / "bundles" / INT8, "is a bundle and no run"),
        (ran.folder / "report.html", "report.html"),
        (tmp_path / "other.json", "not a report of this version: schema_version: "),
        (tmp_path / "other.json", "rsedge 9.0 wrote it"),
        (tmp_path / "list.json", "not a report of this version"),
    ):
        for order in ((path, ran.folder), (ran.folder, path)):
            code, out, err = cli(capsys, *order)
            assert code == 2 and out == "" and words in err and "Traceback" not in err


# -- what got worse --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after", "worse"),
    [
        ("kappa", Figure(0.90, interval=(0.88, 0.92)), Figure(0.80, interval=(0.78, 0.82)), True),
        ("kappa", Figure(0.90, interval=(0.88, 0.92)), Figure(0.89, interval=(0.87, 0.91)), False),
        # Inside the wide interval of one of the two.
        ("kappa", Figure(0.90, interval=(0.70, 0.95)), Figure(0.80, interval=(0.78, 0.82)), False),
        ("kappa", Figure(0.80, interval=(0.78, 0.82)), Figure(0.90, interval=(0.88, 0.92)), False),
        ("size", Figure(100), Figure(101), True),
        ("size", Figure(101), Figure(100), False),
        ("memory", Figure(100), Figure(108), False),
        ("memory", Figure(100), Figure(120), True),
        ("latency", Figure(10), Figure(20), True),
        ("latency", Figure(10), Figure(20, noisy=True), False),
        ("latency", Figure(4, predicted=(3, 6)), Figure(5, predicted=(4, 7)), False),
        ("latency", Figure(4, predicted=(3, 5)), Figure(9, predicted=(7, 12)), True),
        ("speedup", Figure(10, interval=(9.8, 10.2)), Figure(9, interval=(8.9, 9.1)), True),
    ],
)
def test_worse_is_what_lies_beyond_both_intervals(name: str, before: Figure, after: Figure, worse: bool) -> None:
    assert Change("t", name, before, after).regression is worse
    assert not Change("t", name, before, after, reason="other machine").regression


def test_regressions_are_named_and_end_with_exit_code_3(
    ran: RealReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = target(ran.report, INT8)
    assert base.size_bytes is not None
    held = next(g for g in base.gates if g.passed and g.metric == "size")
    broken = Gate.model_validate(
        held.model_dump(exclude={"name", "passed"}) | {"value": held.limit + 1, "outcome": "failed", "leans": None}
    )
    gates = [broken if g == held else g for g in base.gates]
    other = with_target(ran.report, INT8, size_bytes=base.size_bytes + 1, gates=gates)
    other = changed(other, targets=[t for t in other.targets if t.name != F32])
    found = compare(ran.report, other)
    assert found.gone == (F32,) and len(found.regressions) == 3 and compare(ran.report, ran.report).regressions == []
    for words in (f"{INT8}: size: ", f"{INT8}: gate size max", f"{F32}: no such target after"):
        assert any(text.startswith(words) for text in found.regressions), found.regressions
    fields = other.model_dump(mode="json") | {"verdict": None, "headline": None}
    (tmp_path / "worse.json").write_text(json.dumps(fields))
    runs = (ran.folder, ran.folder, tmp_path / "worse.json")
    code, out, err = cli(capsys, *runs, "--fail-on-regression", "--html", tmp_path / "page.html")
    assert code == 3 and f"worse.json: {INT8}: size" in err and "WORSE beyond its interval" in out
    assert out.startswith("1: ") and "\n3: " in out
    page = (tmp_path / "page.html").read_text()
    assert (
        "Worse than run 1" in page
        and f"<b>Run 3</b>: {INT8}: size" in page
        and "http" not in page.replace("http-equiv", "")
    )
    assert all(f"<h2>{t.name}</h2>" in page for t in ran.report.targets) and "predicted" in page
    code, out, _ = cli(capsys, *runs, "--fail-on-regression", "--json")
    record = json.loads(out)
    assert code == 3 and len(record["regressions"]) == 3 and record["against"][0]["regressions"] == []
    assert cli(capsys, ran.folder, ran.folder, "--fail-on-regression")[0] == 0


def test_runs_of_other_tasks_are_refused_by_name(
    ran: RealReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = json.loads((ran.folder / "report.json").read_text())
    (tmp_path / "crops.json").write_text(json.dumps(written | {"classes": ["wheat", "maize"]}))
    scored = [t | {"metrics": {"ap50": 0.5}} for t in written["targets"]]
    (tmp_path / "boxes.json").write_text(json.dumps(written | {"targets": scored}))
    for name, words in (("crops.json", "its outputs are wheat, maize"), ("boxes.json", "it is judged by ap50")):
        code, out, err = cli(capsys, ran.folder, ran.folder, tmp_path / name)
        assert code == 2 and out == "" and f"{name}: is of another task" in err and words in err
    code, _, err = cli(capsys, ran.folder)
    assert code == 2 and "nothing to compare" in err
