"""``student: auto``: the pure choice under any figures, what recipes may say of it, and the stage on a real teacher."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.cache.run_folder import RunFolder
from rsedge.compress.prune.pruning import LatencyEstimate
from rsedge.data.errors import RequestError
from rsedge.devices.measure.decide import race
from rsedge.recipe.checks import preflight
from rsedge.recipe.schema import Recipe
from rsedge.recipe.student_auto import Candidate, candidates_for, choose, latency_gates, table, unfit, verdict
from tests.models.students.small_students import small_contract

CONTENT: dict[str, Any] = {
    "name": "t",
    "threads": 1,
    "teacher": {"name": "ukis-csmask-4b-l2a"},
    "data": {
        "train": [{"source": "spyndex-sentinel2"}],
        "test": {"source": "spyndex-sentinel2", "simulated_clouds": 1},
        "calibration": {"tiles": 8},
        "block": 50,
    },
    "steps": [{"distill": {"steps": 1}}],
    "targets": ["openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"],
}


def recipe(student: dict[str, Any] | str, **more: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps({**CONTENT, **more, "student": student}))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True))
    found = []
    for name in names:
        ms = draw(st.floats(0.01, 100.0))
        found.append(
            Candidate(
                name=name,
                params=draw(st.integers(1, 5)),
                macs=draw(st.integers(1, 5)),
                latency_ms=ms,
                low_ms=ms / 2,
                high_ms=ms * 2,
                provenance=draw(st.sampled_from(["measured", "predicted"])),
                predicted_ms=ms * draw(st.floats(0.5, 2.0)),
            )
        )
    return found


@given(candidates(), st.floats(0.01, 100.0), st.randoms())
def test_the_choice_meets_the_limit_and_none_that_does_is_larger(
    found: list[Candidate], limit: float, rng: Any
) -> None:
    if not any(c.meets(limit) for c in found):
        with pytest.raises(RequestError, match="the fastest is"):
            choose(found, limit)
        return
    chosen = choose(found, limit)
    assert chosen.meets(limit)
    assert all((c.params, c.macs) <= (chosen.params, chosen.macs) for c in found if c.meets(limit))
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert choose(shuffled, limit) == chosen


@given(candidates(), st.floats(0.01, 50.0), st.floats(0.0, 50.0))
def test_a_looser_limit_never_gives_a_smaller_student(found: list[Candidate], limit: float, more: float) -> None:
    if any(c.meets(limit) for c in found):
        tight, loose = choose(found, limit), choose(found, limit + more)
        assert (loose.params, loose.macs) >= (tight.params, tight.macs)


@given(candidates(), st.floats(0.01, 100.0))
def test_the_table_says_why_for_every_candidate(found: list[Candidate], limit: float) -> None:
    if not any(c.meets(limit) for c in found):
        return
    chosen = choose(found, limit)
    rows = table(found, chosen, limit)
    assert sorted(r.student for r in rows) == sorted(c.name for c in found)
    assert [r.outcome for r in rows].count("kept") == 1
    for row in rows:
        by_name = {c.name: c for c in found}
        assert ("over the limit" in row.reason) != by_name[row.student].meets(limit)
        of = by_name[row.student]
        figures = ("latency_ms", "low_ms", "high_ms", "provenance", "params", "macs")
        assert all(getattr(row, name) == getattr(of, name) for name in figures)
    assert verdict(chosen, chosen, limit).startswith("taken")


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("auto", r"student auto has no limit: give latency_ms or speedup, or a latency gate for openvino-cpu-f32"),
        ({"name": "auto", "latency_ms": 5, "speedup": 2}, "give latency_ms or speedup, not both"),
        ({"name": "auto", "latency_ms": 0}, "student.latency_ms: Input should be greater than 0"),
        ({"name": "auto", "latency_ms": 5, "stem": 8}, "student.stem: Extra inputs"),
        ({"name": "auto", "speedup": 2, "target": "openvino-cpu-int8"}, "'openvino-cpu-int8' is not in targets"),
        ({"name": "auto", "speedup": 2, "candidates": ["slim-unit"]}, "'slim-unit' is unknown.*nearest: 'slim-unet'"),
    ],
)
def test_wrong_sections_are_refused_before_any_work(student: dict[str, Any] | str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        preflight(recipe(student))


def test_a_latency_gate_is_a_limit() -> None:
    gates = [{"metric": "latency", "max": 3, "target": "openvino-cpu-f32"}]
    made = recipe("auto", gates=gates)
    preflight(made)
    assert [gate.max for gate in latency_gates(made)] == [3]


def took(ms: float) -> LatencyEstimate:
    return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="measured")


@given(
    st.lists(
        st.tuples(st.sampled_from(["f32", "int8", "max"]), st.floats(0.5, 50)), min_size=1, max_size=4, unique=True
    )
)
@settings(deadline=None)
def test_the_student_is_chosen_to_hold_every_gate_on_latency(limits: list[tuple[str, float]]) -> None:
    """The first alone had counted: what met it could fail the second."""
    from rsedge.stages.student import teacher_targets, tightest

    teacher = {"openvino-cpu-f32": took(90.0), "openvino-cpu-int8": took(40.0)}
    gates = [
        {"metric": "latency", "max": value}
        if kind == "max"
        else {"metric": "latency", "min_speedup": value, "over": f"teacher-openvino-{kind}"}
        for kind, value in limits
    ]
    made = recipe("auto", gates=gates, targets=["openvino-cpu-f32"])
    allowed = [v if k == "max" else teacher[f"openvino-cpu-{k}"].ms / v for k, v in limits]
    assert tightest(made, teacher).ms == pytest.approx(min(allowed))
    assert set(teacher_targets(made)) == {f"openvino-cpu-{k}" for k, _ in limits if k != "max"}


def test_candidates_fit_task_and_input() -> None:
    image = small_contract("slim-unet", "CHW")
    names = candidates_for(recipe({"name": "auto", "latency_ms": 5}), "segmentation", image)
    assert names[0] == "slim-unet" and "smp-unet" not in names and "vit-tiny" not in names
    assert unfit("smp-unet", "segmentation", image) == "needs encoder, which has no default"
    assert "multiple of 32" in unfit("slim-unet", "segmentation", image.model_copy(update={"tile": 48}))
    assert "made from the teacher" in unfit("teacher", "segmentation", image)
    with pytest.raises(RequestError, match="series-conv is for classification"):
        candidates_for(recipe({"name": "auto", "latency_ms": 5, "candidates": ["series-conv"]}), "segmentation", image)


def staged(folder: Path, student: dict[str, Any], **more: Any) -> Any:
    """The stage in a run of a small contract with tiles of noise: latency does not ask what a tile shows."""
    pytest.importorskip("ukis_csmask")
    from rsedge.cache.stage import StageContext
    from rsedge.models.teachers import Teacher, load_teacher
    from rsedge.progress import Reporter
    from rsedge.stages.context import RunContext
    from rsedge.stages.student import student_stage
    from rsedge.tasks.scene_data import JudgedTiles
    from rsedge.tasks.scenes import SceneTask

    made, spec = recipe(student, **more), small_contract("slim-unet", "CHW")
    task = SceneTask(made, spec, ("a", "b"), "segmentation")
    dn = np.random.default_rng(0).integers(1, 6000, (1, *spec.shape), dtype=np.uint16)
    nothing = np.zeros((1, spec.tile, spec.tile))
    JudgedTiles(
        dn, nothing.astype(np.uint8), nothing.astype(bool), nothing.astype(np.int32), np.zeros((len(dn), 2), np.int32)
    ).save(folder / "selection.npz")
    task.load(folder)
    ctx = RunContext(
        recipe=made, spec=spec, classes=("a", "b"), task=task, folders={}, run=RunFolder(folder), teacher_key="",
        reporter=Reporter(quiet=True),
    )  # fmt: skip
    teacher = load_teacher(made.teacher.name)
    ctx.teacher = Teacher(teacher.net, teacher.spec.model_copy(update={"input": spec}), teacher.arch)
    return student_stage(StageContext("student", folder, folder), ctx)


def test_the_stage_measures_where_the_target_is_here(tmp_path: Path) -> None:
    pair = ["slim-unet", "fpn-efficientnet-lite0"]
    found = staged(tmp_path, {"name": "auto", "latency_ms": 1e6, "candidates": pair})
    assert (found.student, found.target) == ("fpn-efficientnet-lite0", "openvino-cpu-f32")
    rows = {r.student: r for r in found.candidates}
    assert {r.provenance for r in rows.values()} == {"measured"}
    assert rows["slim-unet"].params < rows["fpn-efficientnet-lite0"].params
    assert "measured latency within 1e+06 ms" in found.reason


def test_the_teacher_that_a_limit_is_counted_from_runs_in_the_same_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a target of its own too: timed apart, another load between the two had moved the limit."""
    from rsedge.stages import latency

    raced: list[set[str]] = []

    def turns(runners: dict[str, Any], **more: Any) -> Any:
        raced.append(set(runners))
        return race(runners, **more)

    monkeypatch.setattr(latency, "race", turns)
    gates = [{"metric": "latency", "min_speedup": 0.01, "over": "teacher-openvino-f32"}]
    student = {"name": "auto", "candidates": ["slim-unet"]}
    found = staged(tmp_path, student, targets=["openvino-cpu-f32"], gates=gates)
    assert raced == [{"slim-unet", "the teacher on openvino-cpu-f32"}] and "min_speedup 0.01" in found.reason


def test_memory_holds_one_candidate_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsedge.stages import student as stage

    seen: list[weakref.ref[Any]] = []
    build = stage.built

    def counted(name: str, ctx: Any) -> Any:
        gc.collect()
        assert not [one for one in seen if one() is not None], "a network that was weighed is still there"
        net = build(name, ctx)
        seen.append(weakref.ref(net))
        return net

    monkeypatch.setattr(stage, "built", counted)
    three = ["slim-unet", "fpn-efficientnet-lite0", "unet-resnet18"]
    found = staged(tmp_path, {"name": "auto", "latency_ms": 1e6, "candidates": three})
    gc.collect()
    assert len(seen) == len(found.candidates) == 3 and not any(one() is not None for one in seen)


def test_what_openvino_takes_is_not_said_of_another_runtime(tmp_path: Path) -> None:
    student = {"name": "auto", "latency_ms": 1e6, "candidates": ["slim-unet"]}
    found = staged(tmp_path, student, targets=["onnxruntime-cpu-f32"])
    assert found.candidates[0].provenance == "predicted" and "predicted latency within" in found.reason


def test_the_stage_predicts_where_it_is_not_and_says_so(tmp_path: Path) -> None:
    jetson = {"name": "auto", "target": "tensorrt-jetson-orin-nano-8gb-fp16", "candidates": ["slim-unet"]}
    with pytest.raises(RequestError, match=r"at most 1e-06 ms; the fastest is slim-unet with predicted [\d.]+ ms"):
        staged(tmp_path, {**jetson, "latency_ms": 1e-6})
