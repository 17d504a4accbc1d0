"""Teachers that recipes cannot run are refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsedge.data.errors import RequestError
from rsedge.preflight import preflight
from rsedge.recipe import Recipe

CONTENT = {
    "name": "t",
    "data": {"train": [{"source": "ukis-sentinel2"}], "validation": {"source": "ukis-sentinel2", "fraction": 0.25}},
    "steps": [{"distill": {"steps": 1}}],
    "targets": ["openvino-cpu-f32"],
}


def with_teacher(**teacher: str) -> Recipe:
    return Recipe.model_validate_json(json.dumps({**CONTENT, "teacher": teacher}))


def test_a_teacher_of_another_task_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'ffca-yolo' is a teacher for detection; recipes run segmentation"):
        preflight(with_teacher(name="ffca-yolo"))


def test_scenes_and_samples_go_with_maps_and_vectors() -> None:
    with pytest.raises(RequestError, match=r"'geoclip-location' gives one vector per sample; name its samples"):
        preflight(with_teacher(name="geoclip-location"))
    samples = {**CONTENT, "data": {"samples": {"source": "geoclip-galery"}}}
    with pytest.raises(RequestError, match=r"gives class maps; name scenes"):
        preflight(Recipe.model_validate_json(json.dumps(samples)))
    samples["teacher"] = {"name": "geoclip-location"}
    with pytest.raises(
        RequestError, match=r"data\.samples\.source: 'geoclip-galery' is unknown \(nearest: 'geoclip-gallery'\)"
    ):
        preflight(Recipe.model_validate_json(json.dumps(samples)))


def test_a_teacher_without_weights_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"teacher\.checkpoint: 'glcnet-rgb' comes without weights"):
        preflight(with_teacher(name="glcnet-rgb"))
    (tmp_path / "own.pth").touch()
    preflight(with_teacher(name="glcnet-rgb", checkpoint=str(tmp_path / "own.pth")))


def test_an_unknown_teacher_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="nearest: 'ukis-csmask-6b-l1c'"):
        preflight(with_teacher(name="ukis-csmask-6b-l1"))
