"""Captioning recipes that cannot work are refused before any work, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rsedge.data.errors import RequestError
from rsedge.recipe.checks import preflight
from rsedge.recipe.data import SampleDataSection
from rsedge.recipe.schema import Recipe

CONTENT: dict[str, Any] = {
    "name": "t",
    "teacher": {"name": "rs-llava"},
    "data": {"samples": {"source": "captions:rsicd"}},
    "student": {"name": "teacher"},
    "steps": [{"quantize": {}}],
    "targets": ["openvino-cpu-int8"],
}


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    content = json.loads(json.dumps(CONTENT | changes))
    content["teacher"].setdefault("checkpoint", str(tmp_path))
    if "data" not in changes:
        content["data"] = CONTENT["data"]
    return Recipe.model_validate_json(json.dumps(content))


def test_a_good_one_passes_and_names_its_stages(tmp_path: Path) -> None:
    from rsedge.pipeline.run import plan

    pytest.importorskip("transformers")
    found = plan(recipe(tmp_path))
    assert found == ["data", "language", "teacher", "distill", "export", "quantize", "verify", "captions", "bundle"]
    assert isinstance(recipe(tmp_path).data, SampleDataSection)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"teacher": {"name": "geopixel"}}, r"'geopixel' joins neighbouring image tokens \(merge\)"),
        ({"teacher": {"name": "aquila"}}, "'aquila' is no tower with a projector"),
        ({"student": {"name": "vit-tiny"}, "steps": [{"distill": {"steps": 1}}, {"quantize": {}}]},
         "the language model reads the tokens of its own tower; take teacher or narrow-copy, not 'vit-tiny'"),
        ({"teacher": {"name": "rs-llava", "checkpoint": "/nowhere"}}, "teacher.checkpoint: /nowhere: no such folder"),
        ({"teacher": {"name": "rs-llava", "vision": "/nowhere"}}, "teacher.vision: /nowhere: no such file or folder"),
        ({"data": {"samples": {"source": "captions:rsicd"}, "folds": 3}}, "data.folds: captions are judged on held-out images"),
        ({"gates": [{"metric": "top1", "min": 0.5}]}, "top1 is of embedding, 'rs-llava' is a teacher for captioning"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        preflight(recipe(tmp_path, **changes))


def test_what_is_of_captions_goes_with_captioning_teachers_only(tmp_path: Path) -> None:
    other = {"teacher": {"name": "geoclip-location", "adapter": str(tmp_path)}, "language": {},
             "data": {"samples": {"source": "geoclip-gallery"}}, "gates": [{"metric": "rouge_l", "min": 0.1}]}  # fmt: skip
    with pytest.raises(RequestError) as found:
        preflight(recipe(tmp_path, **other))
    for words in (
        "teacher.adapter: goes with captioning",
        "language: goes with captioning",
        "rouge_l is of captioning",
    ):
        assert words in str(found.value)


@pytest.mark.parametrize(
    ("language", "why"),
    [
        ({"template": "{prompt}"}, "write <image> once and {prompt} once"),
        ({"prompt": "<image> what?"}, "<image> stands in the template"),
        ({"ratio": 0.0}, "greater than 0"),
        ({"weights": "int2"}, "'int4', 'int8', 'fp16' or 'f32'"),
    ],
)
def test_a_wrong_language_section_is_told(tmp_path: Path, language: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        recipe(tmp_path, language=language)
