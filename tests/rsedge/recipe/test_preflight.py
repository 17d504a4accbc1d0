"""Teachers that recipes cannot run are refused before any work."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.export.signing import create_key, load_key, write_public
from rsedge.recipe.checks import preflight
from rsedge.recipe.schema import Recipe
from rsedge.stages.teacher_model import recipe_teacher

CONTENT = {
    "name": "t",
    "data": {"train": [{"source": "ukis-sentinel2"}], "test": {"source": "ukis-sentinel2", "fraction": 0.25}},
    "steps": [{"distill": {"steps": 1}}],
    "targets": ["openvino-cpu-f32"],
}


def with_teacher(**teacher: object) -> Recipe:
    return Recipe.model_validate_json(json.dumps({**CONTENT, "teacher": teacher}))


def test_a_teacher_of_another_task_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"'rsprompter-sam-base' is a teacher for instances; recipes run segmentation"
    ):
        preflight(with_teacher(name="rsprompter-sam-base"))


def test_scenes_and_samples_go_with_maps_and_vectors() -> None:
    with pytest.raises(RequestError, match=r"'geoclip-location' gives one vector per sample; name its samples"):
        preflight(with_teacher(name="geoclip-location"))
    samples = {**CONTENT, "teacher": {"name": "geoclip-location"}, "data": {"samples": {"source": "geoclip-galery"}}}
    with pytest.raises(
        RequestError, match=r"data\.samples\.source: 'geoclip-galery' is unknown \(nearest: 'geoclip-gallery'\)"
    ):
        preflight(Recipe.model_validate_json(json.dumps(samples)))


def test_a_teacher_without_weights_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"teacher\.checkpoint: 'glcnet-rgb' comes without weights"):
        preflight(with_teacher(name="glcnet-rgb"))
    (tmp_path / "own.pth").touch()
    preflight(with_teacher(name="glcnet-rgb", checkpoint=str(tmp_path / "own.pth")))


def test_a_key_that_cannot_sign_is_refused_before_any_work(tmp_path: Path) -> None:
    create_key(tmp_path / "own.pem")
    write_public(load_key(tmp_path / "own.pem"), tmp_path / "own.pub").chmod(0o600)
    content = {**CONTENT, "teacher": {"name": "ukis-csmask-6b-l1c"}}
    for name, why in (
        ("own.pub", "not an unencrypted PEM private key"),
        ("none.pem", "no such signing key"),
        ("own.pem", ""),
    ):
        recipe = Recipe.model_validate_json(json.dumps({**content, "signing": {"key": str(tmp_path / name)}}))
        with pytest.raises(RequestError, match=rf"signing\.key: .*{why}") if why else contextlib.nullcontext():
            preflight(recipe)


def test_an_unknown_teacher_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="nearest: 'ukis-csmask-6b-l1c'"):
        preflight(with_teacher(name="ukis-csmask-6b-l1"))


@pytest.mark.parametrize(
    ("target", "section", "why"),
    [
        ("tensorrt-jetson-orin-nano-8gb-fp16", {"dla": 0}, "'jetson-orin-nano-8gb' has no DLA"),
        ("tensorrt-jetson-orin-nx-16gb-fp16", {"dla": 2}, "no DLA core 2; known: 0, 1"),
        ("tensorrt-jetson-orin-nx-16gb-f32", {"dla": 0}, "fp16 and int8, not f32"),
        ("tensorrt-jetson-orin-nx-16gb-int8", {"dla": 0}, r"possible: fp16 on the DLA .*, or int8 on its GPU"),
        (
            "tensorrt-jetson-orin-nx-16gb-fp16",
            {"dla": 0, "max_batch": 4},
            r"fixed shapes only; set tensorrt\.max_batch",
        ),
        ("openvino-cpu-f32", {"dla": 0}, r"tensorrt\.dla: none of the targets is for tensorrt"),
    ],
)
def test_a_dla_that_cannot_be_used_is_refused(target: str, section: dict[str, int], why: str) -> None:
    content = {**CONTENT, "targets": [target], "tensorrt": section, "teacher": {"name": "ukis-csmask-6b-l1c"}}
    if target.endswith("int8"):
        content["steps"] = [{"distill": {"steps": 1}}, {"quantize": {}}]
    with pytest.raises(RequestError, match=why):
        preflight(Recipe.model_validate_json(json.dumps(content)))


@pytest.mark.parametrize(
    ("gated", "why"), [(False, None), (True, "no native .*GlobalAveragePool|no native .*ReduceMean")]
)
def test_the_student_is_held_against_the_dla_before_any_work(gated: bool, why: str | None) -> None:
    from rsedge.stages.export import check_for_targets

    content = {**CONTENT, "targets": ["tensorrt-jetson-orin-nx-16gb-fp16"], "tensorrt": {"dla": 1}}
    recipe = Recipe.model_validate_json(json.dumps({**content, "teacher": {"name": "ukis-csmask-6b-l1c"}}))
    spec = InputSpec(bands=[BandSpec(name=n) for n in ("red", "green")], tile=32)
    ctx = SimpleNamespace(
        recipe=recipe, spec=spec, classes=["a", "b"], build=lambda: (_net(gated), {}), student_name="slim-unet"
    )
    ctx.task = SimpleNamespace(output="map")
    if why is None:
        check_for_targets(ctx)  # type: ignore[arg-type]
        return
    with pytest.raises(RequestError, match=why) as error:
        check_for_targets(ctx)  # type: ignore[arg-type]
    assert "student 'slim-unet'" in str(error.value)


def _net(gated: bool) -> nn.Module:
    """Convolutions, with a squeeze-and-excite gate between them or without."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
            self.gate = nn.Conv2d(8, 8, 1) if gated else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            if self.gate is not None:
                x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            return self.last(x)

    return Net()


OUTSIDE = {"name": "timm:resnet18", "input": {"bands": ["red", "green"], "tile": 64}, "classes": ["a", "b"]}


def test_a_network_of_another_library_needs_its_bands(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give its bands under input"):
        with_teacher(name="timm:resnet18")
    with pytest.raises(ValidationError, match="has its own input and task"):
        with_teacher(**{**OUTSIDE, "name": "glcnet-rgb"})
    with pytest.raises(RequestError, match=r"teacher\.checkpoint: .*no such file"):
        preflight(with_teacher(**OUTSIDE, checkpoint=str(tmp_path / "none.pth")))
    with pytest.raises(RequestError, match=r"teacher\.task: recipes run segmentation"):
        preflight(with_teacher(**OUTSIDE, task="generation"))


def test_a_network_of_another_library_is_the_recipes_teacher(tmp_path: Path) -> None:
    net = timm.create_model("resnet18", in_chans=2, num_classes=2).eval()
    torch.save(net.state_dict(), tmp_path / "own.pth")
    teacher = recipe_teacher(with_teacher(**OUTSIDE, checkpoint=str(tmp_path / "own.pth")).teacher)
    assert teacher.spec.task == "classification" and teacher.spec.classes == ("a", "b")
    assert teacher.spec.input_spec.bands[0].wavelength_nm == 665
    x = torch.randn(1, 2, 64, 64)
    assert torch.equal(teacher(x), net(x))


def test_classes_and_fit_are_of_detectors() -> None:
    with pytest.raises(
        RequestError, match="classes and fit are of detectors, 'glcnet-rgb' is a teacher for segmentation"
    ):
        preflight(with_teacher(name="glcnet-rgb", classes=["a", "b"]))
    content = {
        **CONTENT,
        "teacher": {"name": "ukis-csmask-6b-l1c"},
        "boxes": {"score": 0.5},
    }
    with pytest.raises(RequestError, match="boxes: only detectors heed it"):
        preflight(Recipe.model_validate_json(json.dumps(content)))
    embedding = {**CONTENT, "teacher": {"name": "presto"}, "steps": [{"distill": {"labels": 0.5}}]}
    with pytest.raises(
        RequestError, match=r"steps\.distill\.labels: outputs of a teacher for embedding have no labels"
    ):
        preflight(Recipe.model_validate_json(json.dumps(embedding)))
    with pytest.raises(ValidationError, match="give classes, and no checkpoint"):
        with_teacher(name="ffca-yolo", fit={"steps": 5})
    with pytest.raises(RequestError, match=r"'ffca-yolo' gives boxes; name its samples under data\.samples"):
        preflight(with_teacher(name="ffca-yolo", classes=["a"], fit={"steps": 5}))


PROBED = {**CONTENT, "data": {"samples": {"source": "geoclip-gallery"}}}


@pytest.mark.parametrize(
    ("teacher", "gates", "message"),
    [
        (
            {"name": "so2sat-resnet20"},
            [],
            "a probe goes on embeddings, 'so2sat-resnet20' is a teacher for classification",
        ),
        (
            {"name": "geoclip-location"},
            [{"metric": "cosine", "min": 0.9}],
            "cosine is of embedding, features and captioning, .* for classification",
        ),
    ],
)
def test_probes_go_on_embeddings_and_make_classifiers_of_them(
    teacher: dict[str, str], gates: list[object], message: str
) -> None:
    asked = {**PROBED, "teacher": {**teacher, "classes": ["north"], "probe": {}}, "gates": gates}
    with pytest.raises(RequestError, match=message):
        preflight(Recipe.model_validate_json(json.dumps(asked)))


@pytest.mark.parametrize("teacher", [{"probe": {}}, {"probe": {}, "classes": ["a"], "fit": {"steps": 1}}])
def test_a_probe_names_its_outputs_and_is_all_that_is_fitted(teacher: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="probe fits a linear head on labels: name its outputs"):
        with_teacher(name="geoclip-location", **teacher)


def test_an_encoder_of_another_library_takes_a_probe_and_a_black_box_does_not(tmp_path: Path) -> None:
    net = timm.create_model("resnet18", in_chans=2, num_classes=0).eval()
    torch.save(net.state_dict(), tmp_path / "own.pth")
    asked = with_teacher(**OUTSIDE, checkpoint=str(tmp_path / "own.pth"), probe={})
    teacher = recipe_teacher(asked.teacher)
    assert teacher.spec.task == "classification" and teacher.spec.classes == ("a", "b")
    assert torch.equal(teacher(torch.randn(3, 2, 64, 64)), torch.zeros(3, 2))  # nothing is fitted yet
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(RequestError, match=r"teacher\.probe: an ONNX file is a black box"):
        preflight(with_teacher(**{**OUTSIDE, "name": f"onnx:{tmp_path / 'a.onnx'}"}, probe={}))


def test_a_teacher_that_is_fitted_once_does_not_go_with_folds() -> None:
    data = {"samples": {"source": "boxes", "root": "."}, "folds": 3}
    teacher = {"name": "ffca-yolo", "classes": ["tree"], "fit": {"steps": 5}}
    with pytest.raises(RequestError, match=r"data\.folds: the teacher is fitted once"):
        preflight(Recipe.model_validate_json(json.dumps({**CONTENT, "data": data, "teacher": teacher})))


@pytest.mark.parametrize(
    "gate", [{"metric": "memory", "max": 1e9}, {"metric": "latency", "min_speedup": 2, "over": "teacher-openvino-f32"}]
)
def test_what_is_measured_here_alone_is_not_asked_of_other_devices(gate: dict[str, object]) -> None:
    content = {**CONTENT, "teacher": {"name": "ukis-csmask-6b-l1c"}, "gates": [gate]}
    preflight(Recipe.model_validate_json(json.dumps(content)))
    content["targets"] = ["openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"]
    with pytest.raises(RequestError, match=r"gates\[0\]: .*; tensorrt-jetson-orin-nano-8gb-fp16 is not measured here"):
        preflight(Recipe.model_validate_json(json.dumps(content)))
    content["gates"] = [{**gate, "target": "openvino-cpu-f32"}]
    preflight(Recipe.model_validate_json(json.dumps(content)))
