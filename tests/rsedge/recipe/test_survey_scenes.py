"""Images of a survey set as scenes of a recipe: named one or several, read with splits, held against the teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import RequestError
from rsedge.models.zoo import teacher_row
from rsedge.recipe.checks import has_labels, preflight
from rsedge.recipe.schema import Recipe
from rsedge.recipe.survey import check_contract
from rsedge.tasks.scene_data import load_scenes
from tests.data import tiny_sets

TEACHER = "ukis-csmask-6b-l1c"


def recipe(train: str, test: str, **more: Any) -> Recipe:
    data = {"train": [{"source": train}], "test": {"source": test, **more}, "block": 32}
    content = {"name": "t", "teacher": {"name": TEACHER}, "data": data, "steps": [{"distill": {"steps": 1}}],
               "targets": ["openvino-cpu-f32"]}  # fmt: skip
    return Recipe.model_validate_json(json.dumps(content))


def test_images_become_scenes_with_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchgeo")
    monkeypatch.setenv("RSEDGE_DATA", str(tmp_path))
    tiny_sets.WRITERS["sen12ms"](tmp_path / "sen12ms")
    # The test image was written like that of training: one file under two names counts once.
    asked = recipe("torchgeo:sen12ms/train/0-0", "torchgeo:sen12ms/test/0", labels=False)
    preflight(asked)
    scenes = load_scenes(asked, teacher_row(TEACHER).input_spec, ())
    assert [s.roles for s in scenes] == [("train", "selection", "test")]
    assert scenes[0].scene.image.shape == (15, 256, 256)
    with pytest.raises(RequestError, match="train has 1 images, numbered from 0"):
        load_scenes(
            recipe("torchgeo:sen12ms/train/0-1", "torchgeo:sen12ms/test/0"), teacher_row(TEACHER).input_spec, ()
        )


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            "torchgeo:loveda",
            "torchgeo:loveda/validation/0",
            r"data\.train\[0\]\.source: .*write torchgeo:SET/SPLIT/NUMBER",
        ),
        ("torchgeo:lovda/train/0", "ukis-sentinel2", "nearest: 'loveda'"),
        ("torchgeo:loveda/train/0", "torchgeo:loveda/validation/0-3", "names 4 images; a held-out scene is one"),
        ("torchgeo:levir-cd/train/0", "ukis-sentinel2", "has no class maps"),
    ],
)
def test_wrong_names_are_refused_before_any_work(train: str, test: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        preflight(recipe(train, test))


def test_other_quantities_and_classes_are_refused() -> None:
    spec = teacher_row(TEACHER).input_spec
    classes = ("background", "cloud", "cloud shadow")
    with pytest.raises(RequestError, match=r"loveda/train/0 is rgb_8bit, teacher 'ukis.*' takes toa_reflectance"):
        check_contract(recipe("torchgeo:loveda/train/0", "ukis-sentinel2"), spec, classes)
    labelled = recipe("ukis-sentinel2", "torchgeo:sen12ms/test/0")
    assert has_labels(labelled)
    with pytest.raises(RequestError, match=r"its classes \(evergreen.*write labels: false"):
        check_contract(labelled, spec, classes)
    alone = recipe("ukis-sentinel2", "torchgeo:sen12ms/test/0", labels=False)
    check_contract(alone, spec, classes)
    assert not has_labels(alone)
    own = spec.model_copy(update={"quantity": "rgb_8bit"})
    named = ["Background", "building", "road", "water", "barren", "forest", "agriculture"]
    check_contract(recipe("torchgeo:loveda/train/0-5", "torchgeo:loveda/validation/0"), own, named)
