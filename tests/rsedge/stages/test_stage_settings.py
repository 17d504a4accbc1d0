"""What a stage reads of the recipe is in its key: a changed field reruns the stages that heed it, and no others before them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.documents import Document, Place
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_of
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import Recipe
from rsedge.stages import context as stages_context
from rsedge.stages import judge as stages_judge
from rsedge.stages.context import RunContext
from rsedge.stages.table import STAGES, base_settings, stages_of

INT8, F32 = "openvino-cpu-int8", "openvino-cpu-f32"
RECIPE: dict[str, Any] = {
    "name": "t", "teacher": {"name": "ukis-csmask-4b-l2a"}, "steps": ["distill", "prune", "quantize"],
    "data": {"train": [{"source": "spyndex-sentinel2"}], "test": {"source": "spyndex-sentinel2"}},
    "targets": [INT8, F32], "gates": [{"metric": "kappa", "max_drop": 0.04}],
}  # fmt: skip
SPEC = InputSpec(bands=(BandSpec(name="red", scale=1e-4),), tile=32)
AFTER_DATA = {"data", "teacher", "distill", "prune", "export", "quantize", "verify", "bundle"}


def keys(recipe: Recipe, spec: InputSpec = SPEC) -> dict[str, str]:
    """What the key of each stage hashes of the recipe."""
    task = SimpleNamespace(inputs_key="inputs")
    ctx: Any = SimpleNamespace(recipe=recipe, threads=1, teacher_key="weights", task=task, results={}, spec=spec)
    return {row.name: sha256_of(base_settings(recipe) | row.settings(ctx)) for row in stages_of(recipe)}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({}, set()),
        ({"gates": [{"metric": "kappa", "max_drop": 0.05}]}, {"prune", "quantize", "bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "size", "max": 9000, "target": INT8}]}, {"quantize", "bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "latency", "max": 9}]}, {"bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "kappa", "min": 0.5, "target": F32}]}, {"prune", "bundle"}),
        ({"strict": True}, {"bundle"}),
        ({"data": RECIPE["data"] | {"augment": {"haze": 0.9}}}, AFTER_DATA),
        ({"data": RECIPE["data"] | {"clouds": {"cover": [0.1, 0.2]}}}, AFTER_DATA),
        ({"seed": 1}, AFTER_DATA),
    ],
)
def test_a_changed_field_changes_the_keys_of_the_stages_that_read_it(
    change: dict[str, Any], stages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_judge, "verdicts", lambda *_: {})
    before, after = (keys(check_document(Document(value, {(): Place("test")}))) for value in (RECIPE, RECIPE | change))
    assert {name for name in before if before[name] != after[name]} == stages


def test_what_the_report_says_of_bands_trains_nobody_anew_and_bands_that_are_chosen_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages_judge, "verdicts", lambda *_: {})
    chosen = RECIPE | {"student": {"name": "slim-unet", "bands": 2}, "importance": {"of": ["teacher", "student"]}}
    more = chosen | {"importance": {"of": ["teacher", "student"], "orders": 8}}
    one, other = (check_document(Document(value, {(): Place("test")})) for value in (chosen, more))
    assert {name for name, key in keys(one).items() if key != keys(other)[name]} == {"bands", "importance", "bundle"}
    assert not [row.name for row in stages_of(one) if {"bands", "importance"} & {*row.after}]
    kept = SPEC.model_copy(update={"bands": (BandSpec(name="nir", scale=1e-4),)})
    assert {"distill", "prune", "export", "quantize"} <= {
        n for n, key in keys(one).items() if key != keys(one, kept)[n]
    }


@pytest.mark.parametrize(
    "change",
    [
        {"steps": ["distill", {"prune": {"max_drop": 0.5}}, "quantize"]},
        {"steps": [{"distill": {"batch": 3}}, "prune", "quantize"]},
        {"steps": ["distill", "prune", "replace", "quantize"]},
        {"tensorrt": {"max_batch": 4}},
    ],
)
def test_folds_heed_all_that_makes_a_student_anew(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning that leaves the shipped student as it was may leave those of the folds otherwise."""
    monkeypatch.setattr(stages_judge, "verdicts", lambda *_: {})
    folded = RECIPE | {"data": {"samples": {"source": "x.csv"}, "folds": 3}}
    before, after = (keys(check_document(Document(value, {(): Place("test")}))) for value in (folded, folded | change))
    assert before["crossval"] != after["crossval"]


def test_what_is_shipped_is_what_the_last_step_in_torch_leaves() -> None:
    """A step that is added is read by all that look at the student, and asks for nothing anew of those before it."""
    steps: list[list[Any]] = [["distill", "quantize"], ["distill", "replace", "quantize"]]
    without, added = (check_document(Document(RECIPE | {"steps": s}, {(): Place("test")})) for s in steps)
    assert without.trained == ("distill",) and added.trained == ("distill", "replace")
    names = [row.name for row in stages_of(added)]
    assert names[names.index("distill") + 1] == "replace"
    heed = {row.name for row in stages_of(added) if "replace" in row.after}
    assert heed == {"export", "quantize", "verify", "bundle"}
    with pytest.raises(RequestError, match="steps must be in the order distill, prune, replace, quantize"):
        check_document(Document(RECIPE | {"steps": ["distill", "replace", "prune", "quantize"]}, {(): Place("test")}))


def test_a_new_calibration_of_the_device_changes_what_predicts_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_judge, "verdicts", lambda *_: {})
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path))
    made = check_document(Document(RECIPE, {(): Place("test")}))
    before = keys(made)
    (tmp_path / "raspberry-pi-5.onnxruntime.yaml").write_text("another device")
    assert keys(made) == before
    (tmp_path / "cpu.openvino.yaml").write_text("figures")
    after = keys(made)
    assert {name for name in before if before[name] != after[name]} == {"prune", "quantize", "verify"}


def test_outputs_of_the_teacher_are_kept_for_what_they_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(changes: dict[str, Any], scale: float = 1e-4, weights: str = "weights") -> str:
        recipe = check_document(Document(RECIPE | changes, {(): Place("test")}))
        spec = InputSpec(bands=(BandSpec(name="red", scale=scale),), tile=32)
        ctx = SimpleNamespace(
            recipe=recipe, classes=("a", "b"), teacher_key=weights, only_distribution=True, threads=1, teacher_bf16=False,
            other_keys=[],
            task=SimpleNamespace(inputs_key="inputs", spec=spec, kind="classes"),
        )  # fmt: skip
        found = RunContext.outputs_key.fget(ctx)  # type: ignore[attr-defined]
        assert isinstance(found, str)
        return found

    box = {"name": "onnx:net.onnx", "classes": ["a", "b"], "input": {"bands": ["red"], "tile": 32, "mean": 0.2}}
    kept = key({"teacher": box})
    assert key({"teacher": box, "steps": [{"distill": {"lr": 1e-5}}, "quantize"], "gates": []}) == kept
    others = [
        key({"teacher": box | {"input": box["input"] | {"mean": 0.6}}}),
        key({"teacher": box | {"name": "onnx:net.onnx#second"}}),
        key({"teacher": box}, scale=1e-3),
        key({"teacher": box}, weights="others"),
        key({"teacher": box, "seed": 7}),
    ]
    monkeypatch.setattr(stages_context, "code_hash", lambda modules: "other code")
    assert len({kept, *others, key({"teacher": box})}) == 7


def test_rows_name_what_there_is_and_read_what_ran_before() -> None:
    before: set[str] = set()
    for row in STAGES:
        record, body = row.load()
        assert record.stage == row.name and body.__module__ == f"rsedge.stages.{row.name}"
        assert set(row.after) <= before
        before.add(row.name)


def test_the_table_in_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[3] / "docs/architecture.md").read_text(encoding="utf-8")
    rows = text.split("| stage | makes | from |", 1)[1].splitlines()[2:]
    named = [
        line.split("|")[1].strip()
        for line in rows[: next(i for i, line in enumerate(rows) if not line.startswith("|"))]
    ]
    assert named == [row.name for row in STAGES]
