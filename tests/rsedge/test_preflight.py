"""Teachers that recipes cannot run are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsedge.data.errors import RequestError
from rsedge.preflight import preflight
from rsedge.recipe import Recipe

CONTENT = {
    "name": "t",
    "data": {"train": [{"source": "ukis-sentinel2"}], "validation": {"source": "ukis-sentinel2", "fraction": 0.25}},
    "steps": [{"distill": {"steps": 1}}],
    "targets": ["openvino-cpu-int8"],
}


def with_teacher(**teacher: str) -> Recipe:
    return Recipe.model_validate({**CONTENT, "teacher": teacher})


def test_a_teacher_of_another_task_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'seco-resnet18' is a teacher for embedding; recipes run segmentation"):
        preflight(with_teacher(name="seco-resnet18"))


def test_a_teacher_without_weights_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"teacher\.checkpoint: 'glcnet-rgb' comes without weights"):
        preflight(with_teacher(name="glcnet-rgb"))
    (tmp_path / "own.pth").touch()
    preflight(with_teacher(name="glcnet-rgb", checkpoint=str(tmp_path / "own.pth")))


def test_an_unknown_teacher_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="nearest: 'ukis-csmask-6b-l1c'"):
        preflight(with_teacher(name="ukis-csmask-6b-l1"))
