"""Smaller parts that cannot take a part's place are seen before anything is taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import yaml

from rsedge.data.errors import RequestError
from rsedge.models.families import family
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.reading import load_recipe
from rsedge.stages.parts.teachers import TeacherPart, student_part, teacher_parts

SAM = {"image": 64, "dim": 32, "depth": 2, "heads": 2, "whole": [1], "hidden": 32, "prompts": 3, "points": 2}


def parts(folder: Path, arch: dict[str, Any]) -> dict[str, TeacherPart]:
    state = family("sam_points").build(**SAM).state_dict()
    state = {k.replace("no_mask_embed", "prompt_encoder.no_mask_embed"): v for k, v in state.items()}
    safetensors.torch.save_file(state, folder / "sam.safetensors")
    teacher = {"name": "sam-base", "checkpoint": "sam.safetensors", "arch": arch}
    fields = {"name": "masks", "whole": "prompted-masks", "teacher": teacher, "data": {"samples": "prompts.npz"}}
    fields |= {"parts": {"encoder": None, "decoder": None}, "targets": ["openvino-cpu-f32"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    recipe = load_recipe(folder / "recipe.yaml")
    assert isinstance(recipe, PartsRecipe)
    return teacher_parts(recipe)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ({"heads": 3}, r"parts\.encoder\.student\.arch: the part does not run so"),
        (
            {"hidden": 16},
            r"parts\.encoder\.student\.arch: 'embedding' is \(1, 16, 4, 4\) so, the teacher's \(1, 32, 4, 4\)",
        ),
    ],
)
def test_a_student_that_does_not_fit_is_named_by_its_field(arch: dict[str, Any], words: str, tmp_path: Path) -> None:
    own = parts(tmp_path, {"prompts": 3})["encoder"]
    with pytest.raises(RequestError, match=words):
        student_part(own, arch, 0, "parts.encoder.student.arch")


@pytest.mark.parametrize("prompts", [-1, "many"])
def test_sizes_of_which_no_part_can_be_are_named(prompts: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"parts\.encoder: teacher\.arch: 'sam-base' gives no parts so"):
        parts(tmp_path, {"prompts": prompts})
