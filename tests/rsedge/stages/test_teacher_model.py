"""Teachers that are no single graph: they run in torch, are named by their rows, and are refused where a graph is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.models.families import family
from rsedge.models.parts import one_graph
from rsedge.models.structure import save_model
from rsedge.models.teachers import Teacher
from rsedge.recipe.schema import FitSection, TeacherSection
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.stages import teacher_model
from rsedge.stages.teacher_model import as_openvino, openvino_teacher, recipe_teacher, torch_teacher, untrained
from tests.models.small import random_net
from tests.models.small_parts import SMALL, small_row


@pytest.fixture
def teacher() -> Teacher:
    row = small_row("rvsa-vitb-oriented-dior")
    return Teacher(random_net(row), row, row.arch).eval()


def test_a_detector_with_steps_between_its_parts_teaches_in_torch(teacher: Teacher) -> None:
    assert not one_graph(teacher) and one_graph(random_net(small_row("l-ffca-yolo")))
    spec = teacher.spec.input_spec
    run = openvino_teacher(teacher, spec, 1)
    x = np.random.default_rng(0).standard_normal((2, *spec.shape)).astype(np.float32)
    found, other = run(x)["logits"], run(x[::-1].copy())["logits"]
    assert found.shape == (2, 12, 25) and np.allclose(found, other[::-1], atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-2)  # as a traced graph's constants would be
    assert len(boxes_of(found[0], score=0.01))
    tapped = torch_teacher(teacher, ["net.neck.fpn_convs.0"], "cpu")(x)
    assert np.allclose(tapped["logits"], found) and tapped["net.neck.fpn_convs.0"].shape == (2, 16, 36, 36)
    with pytest.raises(RequestError, match="teacher_autocast: 'rvsa-vitb-oriented-dior' has steps of the host"):
        torch_teacher(teacher, (), "cpu", bf16=True)
    with pytest.raises(RequestError, match="steps of the host between its parts"):
        as_openvino(teacher, spec)


def test_it_is_not_fitted() -> None:
    small = {key: value for key, value in SMALL["rvsa_oriented"].items() if key != "image"}
    fit = FitSection(steps=1, tile=144, arch=small)
    with pytest.raises(RequestError, match=r"teacher\.fit: 'rvsa-vitb-oriented-dior' has steps between its parts"):
        untrained(TeacherSection(name="rvsa-vitb-oriented-dior", classes=("a",), fit=fit), fit)


def test_its_row_names_its_classes(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(**more: Any) -> tuple[str, ...]:
        return recipe_teacher(TeacherSection(name=teacher.spec.name, checkpoint=Path("x.pth"), **more)).spec.classes

    monkeypatch.setattr(teacher_model, "load_teacher", lambda name, checkpoint: teacher)
    assert recipe()[:2] == ("airplane", "airport")
    assert recipe(classes=tuple(f"k{i}" for i in range(20)))[0] == "k0"
    with pytest.raises(RequestError, match="1 names, 'rvsa-vitb-oriented-dior' has 20 classes"):
        recipe(classes=("one",))
    arch = teacher.arch | {"classes": 3}
    other = Teacher(family("rvsa_oriented").build(**arch), teacher.spec, arch)
    monkeypatch.setattr(teacher_model, "load_teacher", lambda name, checkpoint: other)
    assert recipe() == ("class 0", "class 1", "class 2")


DETECTOR = {
    "stem": 8,
    "encoder": [8, 16],
    "blocks": [0, 0],
    "decoder": [16],
    "levels": [1],
    "head": 8,
    "oriented": True,
}
CONTRACT = {"bands": ["red", "green"], "tile": 32, "dtype": "uint8"}


def test_a_student_is_a_teacher_fresh_or_as_a_run_left_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "student:slim-detector", "task": "detection", "input": CONTRACT}
    fit = FitSection(steps=1, arch={"head": 12})
    fresh = recipe_teacher(TeacherSection(**given, classes=("ship", "plane"), arch=DETECTOR, fit=fit))
    assert fresh.spec.title == "student:slim-detector" and fresh.spec.classes == ("ship", "plane")
    x = torch.rand(1, 2, 32, 32)
    assert fresh(x).shape == (1, 64, 9) and fresh.net.heads[0][1].in_channels == 12  # type: ignore[index, union-attr]
    save_model(
        fresh.net, tmp_path / "model", "slim-detector", {"bands": 2, "classes": 2, "tile": 32, **DETECTOR, "head": 12}
    )
    file = tmp_path / "model/structure.json"
    left = recipe_teacher(TeacherSection(**given, classes=("ship", "plane"), checkpoint=file))
    torch.testing.assert_close(left(x), fresh(x))
    with pytest.raises(
        RequestError, match="gives 4 outputs, but 3 classes are named; candidates have 5 columns beside"
    ):
        recipe_teacher(TeacherSection(**given, classes=("a", "b", "c"), checkpoint=file))
    with pytest.raises(RequestError, match="it is a slim-detector, not a slim-unet; write `student:slim-detector`"):
        recipe_teacher(TeacherSection(**{**given, "name": "student:slim-unet"}, classes=("a",), checkpoint=file))
    with pytest.raises(RequestError, match=r"the structure\.json is taken that a run left"):
        recipe_teacher(TeacherSection(**given, classes=("a",), checkpoint=tmp_path / "model/model.safetensors"))
