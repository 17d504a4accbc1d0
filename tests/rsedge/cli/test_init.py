"""``rsedge init`` writes recipes that load."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsedge.cli.init import Answers, ask, write_recipe
from rsedge.data.errors import RequestError
from rsedge.recipe.reading import load_recipe


def test_defaults_load(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", ask(Answers(), interactive=False))
    recipe = load_recipe(path)
    assert recipe.name == "my-model"
    assert recipe.quantize is not None


def test_without_the_shared_scenes_it_names_what_wheels_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsedge.recipe.scenes import section_scene
    from rsedge.stages.teacher_model import recipe_teacher

    monkeypatch.setenv("RSEDGE_DATA", str(tmp_path))
    recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", ask(Answers(), interactive=False)))
    spec = recipe_teacher(recipe.teacher).spec
    for section in recipe.scenes.train:
        assert set(spec.input_spec.band_names) <= set(section_scene(section, spec.input_spec, spec.classes).bands)


def test_answers_end_up_in_the_recipe(tmp_path: Path) -> None:
    given = Answers(
        name="drone-7",
        teacher="ukis-csmask-4b-l2a",
        train=("field.tif", "spyndex-sentinel2"),
        targets=("openvino-cpu-f32",),
    )
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", ask(given, interactive=False)))
    assert recipe.teacher.name == "ukis-csmask-4b-l2a"
    assert recipe.data.train[0].path == tmp_path / "field.tif"
    assert recipe.data.train[1].source == "spyndex-sentinel2"
    assert recipe.quantize is None
    assert recipe.targets == ("openvino-cpu-f32",)


def test_questions_take_numbers_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = iter(["asked", "2", "slim-unet", "naip", "openvino-cpu-int8"])
    monkeypatch.setattr("rsedge.cli.init.typer.prompt", lambda *a, **k: next(replies))
    answers = ask(Answers(), interactive=True)
    assert answers.name == "asked"
    assert answers.teacher == "ukis-csmask-6b-l2a"
    assert answers.train == ("naip",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Answers(teacher="ukis-csmask-6b-l1d"), r"nearest: 'ukis-csmask-6b-l1c'"),
        (Answers(student="slim-net"), r"nearest: 'slim-unet'"),
        (Answers(targets=("openvino-cpuu-int8",)), r"nearest: 'cpu'"),
    ],
)
def test_unknown_answers_are_refused(given: Answers, expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        ask(given, interactive=False)


def test_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        write_recipe(path, ask(Answers(), interactive=False))
    assert path.read_text() == "mine"


def test_answers_that_make_no_recipe_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must start with a letter"):
        write_recipe(tmp_path / "r.yaml", ask(Answers(name="../up"), interactive=False))
    assert not (tmp_path / "r.yaml").exists()
