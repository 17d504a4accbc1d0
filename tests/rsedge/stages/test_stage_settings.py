"""What a stage reads of the recipe is in its key: a changed field reruns the stages that heed it, and no others before them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.documents import Document, Place
from rsedge.data.files import sha256_of
from rsedge.pipeline.run import Line, base_settings, stage_names
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import Recipe
from rsedge.stages import bundle as stages_bundle
from rsedge.stages import context as stages_context
from rsedge.stages import judge as stages_judge
from rsedge.stages.context import RunContext

INT8, F32 = "openvino-cpu-int8", "openvino-cpu-f32"
RECIPE: dict[str, Any] = {
    "name": "t", "teacher": {"name": "ukis-csmask-4b-l2a"}, "steps": ["distill", "prune", "quantize"],
    "data": {"train": [{"source": "spyndex-sentinel2"}], "test": {"source": "spyndex-sentinel2"}},
    "targets": [INT8, F32], "gates": [{"metric": "kappa", "max_drop": 0.04}],
}  # fmt: skip
AFTER_DATA = {"data", "teacher", "distill", "prune", "export", "quantize", "verify", "bundle"}


class Keys(Line):
    """A line that runs nothing and keeps what the key of each stage hashes of the recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.base, self.found = recipe, base_settings(recipe), {}
        self.ctx: Any = SimpleNamespace(threads=1, teacher_key="weights", teacher=None)
        self.task: Any = SimpleNamespace(data_stage=None, inputs_key="inputs")
        self.run: Any = None
        self.asked = stage_names(recipe)
        self.stages: Any = SimpleNamespace(results={})
        self.run_all()

    def _stage(self, record: Any, stage: Any, told: Any, settings: Any, after: Any = (), inputs: Any = None) -> Any:
        self.found[record.stage] = sha256_of(self.base | settings)
        return SimpleNamespace(folder=None, value=None)


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({}, set()),
        ({"gates": [{"metric": "kappa", "max_drop": 0.05}]}, {"quantize", "bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "size", "max": 9000, "target": INT8}]}, {"quantize", "bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "latency", "max": 9}]}, {"bundle"}),
        ({"gates": [*RECIPE["gates"], {"metric": "kappa", "min": 0.5, "target": F32}]}, {"bundle"}),
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
    monkeypatch.setattr(stages_bundle, "publish", lambda *_: None)
    before, after = (
        Keys(check_document(Document(value, {(): Place("test")}))).found for value in (RECIPE, RECIPE | change)
    )
    assert {name for name in before if before[name] != after[name]} == stages


def test_a_new_calibration_of_the_device_changes_what_predicts_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_judge, "verdicts", lambda *_: {})
    monkeypatch.setattr(stages_bundle, "publish", lambda *_: None)
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path))
    made = check_document(Document(RECIPE, {(): Place("test")}))
    before = Keys(made).found
    (tmp_path / "raspberry-pi-5.onnxruntime.yaml").write_text("another device")
    assert Keys(made).found == before
    (tmp_path / "cpu.openvino.yaml").write_text("figures")
    after = Keys(made).found
    assert {name for name in before if before[name] != after[name]} == {"prune", "quantize", "verify"}


def test_outputs_of_the_teacher_are_kept_for_what_they_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(changes: dict[str, Any], scale: float = 1e-4, weights: str = "weights") -> str:
        recipe = check_document(Document(RECIPE | changes, {(): Place("test")}))
        spec = InputSpec(bands=(BandSpec(name="red", scale=scale),), tile=32)
        ctx = SimpleNamespace(
            recipe=recipe, spec=spec, classes=("a", "b"), teacher_key=weights, task=SimpleNamespace(inputs_key="inputs")
        )
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
