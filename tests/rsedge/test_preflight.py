"""Teachers that recipes cannot run are refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError

from rsedge.data.errors import RequestError
from rsedge.preflight import preflight
from rsedge.recipe import Recipe
from rsedge.stages_train import recipe_teacher

CONTENT = {
    "name": "t",
    "data": {"train": [{"source": "ukis-sentinel2"}], "validation": {"source": "ukis-sentinel2", "fraction": 0.25}},
    "steps": [{"distill": {"steps": 1}}],
    "targets": ["openvino-cpu-f32"],
}


def with_teacher(**teacher: object) -> Recipe:
    return Recipe.model_validate_json(json.dumps({**CONTENT, "teacher": teacher}))


def test_a_teacher_of_another_task_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'ffca-yolo' is a teacher for detection; recipes run segmentation"):
        preflight(with_teacher(name="ffca-yolo"))


def test_scenes_and_samples_go_with_maps_and_vectors() -> None:
    with pytest.raises(RequestError, match=r"'geoclip-location' gives one vector per sample; name its samples"):
        preflight(with_teacher(name="geoclip-location"))
    samples = {**CONTENT, "teacher": {"name": "ukis-csmask-6b-l1c"}, "data": {"samples": {"source": "geoclip-galery"}}}
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


OUTSIDE = {"name": "timm:resnet18", "input": {"bands": ["red", "green"], "tile": 64}, "classes": ["a", "b"]}


def test_a_network_of_another_library_needs_its_bands(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give its bands under input"):
        with_teacher(name="timm:resnet18")
    with pytest.raises(ValidationError, match="has its own input, classes and task"):
        with_teacher(**{**OUTSIDE, "name": "glcnet-rgb"})
    with pytest.raises(RequestError, match=r"teacher\.checkpoint: .*no such file"):
        preflight(with_teacher(**OUTSIDE, checkpoint=str(tmp_path / "none.pth")))
    with pytest.raises(RequestError, match="recipes need a network in torch"):
        preflight(with_teacher(**{**OUTSIDE, "name": "onnx:m.onnx"}))
    with pytest.raises(RequestError, match=r"teacher\.task: recipes run segmentation"):
        preflight(with_teacher(**OUTSIDE, task="detection"))


def test_a_network_of_another_library_is_the_recipes_teacher(tmp_path: Path) -> None:
    net = timm.create_model("resnet18", in_chans=2, num_classes=2).eval()
    torch.save(net.state_dict(), tmp_path / "own.pth")
    teacher = recipe_teacher(with_teacher(**OUTSIDE, checkpoint=str(tmp_path / "own.pth")).teacher)
    assert teacher.spec.task == "classification" and teacher.spec.classes == ("a", "b")
    assert teacher.spec.input_spec.bands[0].wavelength_nm == 665
    x = torch.randn(1, 2, 64, 64)
    assert torch.equal(teacher(x), net(x))
