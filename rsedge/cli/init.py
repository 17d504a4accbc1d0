"""``rsedge init``: a few questions, then a commented recipe that loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from rsedge.data.document_check import nearest
from rsedge.data.documents import read_document
from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes
from rsedge.data.sets.scene_sources import is_here
from rsedge.devices.profiles.profile import check_target
from rsedge.models.zoo import zoo
from rsedge.recipe.reading import check_document
from rsedge.runtimes.inference.outputs import check_outputs

STUDENTS = {
    "slim-unet": "plain 3x3 convolutions, made for integer inference (default)",
    "smp-unet": "a U-Net over any timm encoder; add e.g. `encoder: timm-mobilenetv3_small_100`",
}
DEFAULT_TARGETS = ("openvino-cpu-f32", "openvino-cpu-int8")
DEFAULT_TRAIN = ("ukis-sentinel2", "sen1floods11-spain", "landsat7-olinda")
IN_WHEELS = ("ukis-csmask-4b-l1c", ("spyndex-sentinel2",))
"""Teacher and scenes where those of :data:`DEFAULT_TRAIN` are not here: what is written runs on every machine."""


@dataclass(frozen=True)
class Answers:
    """What the user said; None where the question is still open."""

    name: str | None = None
    teacher: str | None = None
    student: str | None = None
    train: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None


def ask(given: Answers, interactive: bool) -> Answers:
    """Fills what is open, by asking or with defaults, and checks every answer.

    Raises:
        RequestError: an answer names something that does not exist.
    """
    teachers = [row.name for row in zoo() if row.task == "segmentation" and row.weights]
    first, scenes = (teachers[0], DEFAULT_TRAIN) if all(map(is_here, DEFAULT_TRAIN)) else IN_WHEELS
    name = given.name or _prompt("Name of the recipe", "my-model", interactive)
    teacher = given.teacher or _choose("Teacher", teachers, first, interactive)
    student = given.student or _choose("Student", list(STUDENTS), "slim-unet", interactive)
    train = given.train or _prompt_list("Training scenes (names or GeoTIFFs)", scenes, interactive)
    targets = given.targets or _prompt_list("Targets, see `rsedge devices`", DEFAULT_TARGETS, interactive)
    answers = replace(given, name=name, teacher=teacher, student=student, train=train, targets=targets)
    _known("teacher", teacher, teachers)
    _known("student", student, list(STUDENTS))
    for target in targets:
        check_target(target)
    return answers


def write_recipe(path: Path, answers: Answers) -> Path:
    """Writes the recipe.

    Raises:
        RequestError: the file exists already, or the answers make no valid recipe (nothing is left behind).
    """
    check_outputs([path], replace=False)
    write_bytes(path, recipe_text(answers).encode(), replace=False)
    try:
        check_document(read_document(path))
    except RequestError:
        path.unlink()
        raise
    return path


def recipe_text(answers: Answers) -> str:
    """The commented YAML for complete answers."""
    scenes = "\n".join(f"    - {_scene(s)}" for s in answers.train or ())
    targets = "\n".join(f"  - {t}" for t in answers.targets or ())
    int8 = any(t.endswith("-int8") for t in answers.targets or ())
    quantize = (
        "  - quantize:                # search INT8 settings that stay within this drop of the score\n"
        "      max_drop: 0.005\n"
        if int8
        else ""
    )
    return f"""\
# Written by `rsedge init`. Other fields have defaults; `rsedge run` writes them all to recipe.resolved.yaml.
name: {_text(answers.name)}
seed: 0                      # the same seed gives the same student on the same machine
teacher:
  name: {_text(answers.teacher)}    # `rsedge teachers` lists them; checkpoint: my.safetensors takes your own weights
data:
  train:                     # distillation needs no labels, only scenes like those the student will see
{scenes}
  test:                      # judges every artefact, on spatial blocks that nothing else ever sees
    {_scene((answers.train or DEFAULT_TRAIN)[0], flow=False)}
    fraction: 0.25
  selection: {{fraction: 0.15}}  # further blocks, for choices: when to stop, what to prune, which INT8 settings
  calibration: {{tiles: 64}}   # sets the ranges of the INT8 model
student:
  name: {_text(answers.student)}
steps:
  - distill:                 # the student learns the teacher's outputs on augmented views
      steps: 1000
{quantize}targets:                     # <runtime>-<device>-<precision>
{targets}
gates:                       # `rsedge run` ends with exit code 3 when one of them fails
  - {{metric: agreement, min: 0.95}}
"""


def _scene(scene: str, flow: bool = True) -> str:
    is_file = scene.lower().endswith((".tif", ".tiff"))
    text = f"path: {_text(scene)}" if is_file else f"source: {_text(scene)}"
    return f"{{{text}}}" if flow else text


def _text(value: str | None) -> str:
    """A YAML scalar: bare where that is safe, quoted otherwise."""
    text = value or ""
    plain = text.replace("-", "").replace("_", "").replace("/", "").replace(".", "")
    return text if plain.isalnum() and not plain.isdigit() else json.dumps(text)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise RequestError(f"{what} '{name}' is unknown{nearest(name, names)}; known: {', '.join(names)}")


def _prompt(question: str, default: str, interactive: bool) -> str:
    return str(typer.prompt(question, default=default, err=True)) if interactive else default


def _prompt_list(question: str, default: tuple[str, ...], interactive: bool) -> tuple[str, ...]:
    text = _prompt(f"{question}, with commas between", ", ".join(default), interactive)
    return tuple(t.strip() for t in text.split(",") if t.strip())


def _choose(question: str, choices: Sequence[str], default: str, interactive: bool) -> str:
    if not interactive:
        return default
    for number, choice in enumerate(choices, 1):
        about = STUDENTS.get(choice)
        typer.echo(f"  {number}. {choice}" + (f" - {about}" if about else ""), err=True)
    answer = _prompt(f"{question} (name or number)", default, interactive).strip()
    return choices[int(answer) - 1] if answer.isdigit() and 0 < int(answer) <= len(choices) else answer
