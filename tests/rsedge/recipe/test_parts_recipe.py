"""Recipes of several parts: what they may hold, and what is said where they cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rsedge.data.errors import RequestError
from rsedge.recipe.part_checks import preflight_parts
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.reading import dump_recipe, load_recipe
from rsedge.stages.names import stage_names

RECIPE: dict[str, Any] = {
    "name": "masks",
    "teacher": {"name": "sam-base", "checkpoint": "sam.safetensors"},
    "whole": "prompted-masks",
    "parts": {
        "encoder": {
            "student": {"arch": {"depth": 2}},
            "steps": [{"distill": {"steps": 3}}, "quantize"],
            "gates": [{"metric": "agreement", "min": 0.9}],
        },
        "decoder": None,
    },
    "data": {"samples": "prompts.npz"},
    "targets": ["openvino-cpu-f32", "openvino-cpu-int8"],
    "gates": [{"metric": "agreement", "min": 0.9}],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}, sort_keys=False))
    return path


def loaded(folder: Path, **changes: Any) -> PartsRecipe:
    recipe = load_recipe(written(folder, **changes))
    assert isinstance(recipe, PartsRecipe)
    return recipe


def test_short_forms_and_paths_are_read_as_in_other_recipes(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    assert recipe.parts["encoder"].quantize is not None and recipe.parts["decoder"].steps == ()
    assert recipe.data.samples == tmp_path / "prompts.npz"
    assert recipe.teacher_of("decoder").checkpoint == tmp_path / "sam.safetensors"
    assert stage_names(recipe) == ["data", "teacher", "distill", "export", "quantize", "verify", "bundle"]
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_stages_that_have_nothing_to_do_are_left_out(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, parts={"encoder": None, "decoder": None}, targets=["onnxruntime-cpu-f32"])
    assert stage_names(recipe) == ["data", "teacher", "export", "verify", "bundle"]


def part(**changes: Any) -> dict[str, Any]:
    return {"encoder": {**RECIPE["parts"]["encoder"], **changes}, "decoder": {}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": None}, "parts.encoder: names no teacher"),
        ({"parts": part(student=None)}, "student and the step distill go together"),
        ({"parts": part(steps=["quantize", {"distill": {}}])}, "in this order"),
        ({"parts": part(gates=[{"metric": "kappa", "max_drop": 0.1}])}, "agreement or size, not kappa"),
        ({"parts": {"Encoder": {}}}, "small letters"),
        ({"gates": [{"metric": "recall1", "max_drop": 0.1}]}, "recall1 is for retrieval"),
        ({"gates": [{"metric": "memory", "max": 1}]}, "memory is not taken"),
        ({"gates": [{"metric": "latency", "min_speedup": 2, "over": "teacher-openvino-int8"}]}, "over teacher-openvino-int8"),
        ({"gates": [{"metric": "agreement", "min": 0.5, "target": "openvino-cpu-bf16"}]}, "which is not in targets"),
        ({"gates": [], "strict": True}, "strict asks for decided gates"),
        ({"targets": ["tensorrt-jetson-orin-nano-8gb-fp16"]}, "TensorRT runs no networks of several parts"),
        ({"parts": {"encoder": {}, "decoder": {}}}, "INT8, but no part's steps hold 'quantize'"),
        ({"data": {"sample": "a.npz"}}, "sample"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        load_recipe(written(tmp_path, **changes))


def test_a_gate_of_retrieval_goes_with_retrieval(tmp_path: Path) -> None:
    gates = [{"metric": "recall1", "max_drop": 0.1}, {"metric": "mrr", "min": 0.5}]
    assert loaded(tmp_path, whole="retrieval", gates=gates).gates[0].metric == "recall1"


def test_everything_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, teacher={"name": "sam-bas"}, whole="prompted-mask")
    with pytest.raises(RequestError) as error:
        preflight_parts(recipe)
    for words in (
        "3 problems",
        "'prompted-mask' is unknown",
        "prompted-masks",
        "'sam-bas' is unknown",
        "sam-base",
        "prompts.npz: no such file",
    ):
        assert words in str(error.value), words
    with pytest.raises(RequestError, match="'sam-base' comes without weights; give the file of its authors"):
        preflight_parts(loaded(tmp_path, teacher={"name": "sam-base"}))


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"test 0\.5 and selection 0.5 leave nothing to train on"):
        loaded(tmp_path, data={"samples": "prompts.npz", "test": 0.5, "selection": 0.5})


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        ({"name": "prompted-masks", "picture": {"bands": ["red"], "tile": 64}}, "prompted-masks makes none"),
        ({"name": "sampled-picture", "picture": {"bands": 3}}, "whole.picture: bands: needed is a list"),
        ({"name": "sampled-picture", "picture": {"bands": ["red"], "tile": "wide"}}, "whole.picture: tile"),
    ],
)
def test_a_picture_that_cannot_be_is_seen_before_any_work(whole: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        preflight_parts(loaded(tmp_path, whole=whole, gates=[]))


def test_a_checkpoint_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "GeoPixel").mkdir()
    (tmp_path / "prompts.npz").touch()
    preflight_parts(loaded(tmp_path, teacher={"name": "geopixel-masks", "checkpoint": "GeoPixel"}))
