"""The first recipe for a model and data: the YAML that ``rsedge init`` writes, with a comment where something should be known."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsedge.recipe.folders import Numbers

GATES = {
    "segmentation": "  - {metric: agreement, min: 0.95}\n",
    "classification": "  - {metric: agreement, min: 0.95}\n",
    "embedding": "  - {metric: cosine, min: 0.95}\n",
}
"""What is asked first, by task; nothing where no figure says enough without the data's own unit."""


@dataclass(frozen=True)
class Contract:
    """What another library's network takes, as its recipe says it; ``sensor`` where names of bands need it."""

    bands: tuple[str, ...]
    tile: int
    numbers: Numbers
    sensor: str | None = None


@dataclass(frozen=True)
class Chips:
    """Images in a folder, in place of scenes; ``classes``: its sub-folders in the order of the outputs, none without labels."""

    folder: Path
    tile: int
    numbers: Numbers
    classes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """All that a first recipe says.

    Attributes:
        contract: of networks of other libraries; those of the zoo have their own.
        scenes: named scenes and files, the last of which judges; none for samples.
        labels: the raster of the judging scene, and what its values are where they are no class numbers.
        file_bands: names of the files' bands, where they do not say.
        samples: a set of samples, in place of scenes.
        chips: a folder of images, in place of both.
        block: edge of spatial blocks (pixels).
    """

    name: str
    teacher: str
    student: str
    targets: tuple[str, ...]
    task: str
    checkpoint: Path | None = None
    contract: Contract | None = None
    classes: tuple[str, ...] = ()
    scenes: tuple[str | Path, ...] = ()
    labels: Path | None = None
    label_map: dict[int, str] = field(default_factory=dict)
    file_bands: tuple[str, ...] = ()
    samples: str | None = None
    chips: Chips | None = None
    block: int = 64


def recipe_text(start: Start, folder: Path) -> str:
    """The commented YAML, with files named as seen from the folder in which it will lie."""
    int8 = any(target.endswith("-int8") for target in start.targets)
    quantize = (
        "  - quantize:                # search INT8 settings that stay within this drop of the score\n"
        "      max_drop: 0.005\n"
        if int8
        else ""
    )
    targets = "\n".join(f"  - {target}" for target in start.targets)
    gates = GATES.get(start.task)
    ends = (
        f"gates:                       # `rsedge run` ends with exit code 3 when one of them fails\n{gates}"
        if gates
        else ""
    )
    return f"""\
# Written by `rsedge init`. Other fields have defaults; `rsedge run` writes them all to recipe.resolved.yaml.
name: {scalar(start.name)}
seed: 0                      # the same seed gives the same student on the same machine
{_teacher(start, folder)}data:
{_samples(start, folder) if start.samples or start.chips else _scenes(start, folder)}student:
  name: {scalar(start.student)}
steps:
  - distill:                 # the student learns the teacher's outputs on augmented views
      steps: 1000
{quantize}targets:                     # <runtime>-<device>-<precision>
{targets}
{ends}"""


def _teacher(start: Start, folder: Path) -> str:
    loader, colon, name = start.teacher.partition(":")
    file = loader == "onnx" and colon
    shown = f"{loader}:{_seen(Path(name), folder)}" if file else start.teacher
    lines = ["teacher:", f"  name: {scalar(shown)}    # `rsedge teachers` lists them"]
    if start.checkpoint is not None:
        lines.append(f"  checkpoint: {scalar(_seen(start.checkpoint, folder))}")
    if start.contract is not None:
        found = start.contract.numbers
        lines += [
            "  input:                     # what its numbers mean: physical = stored * scale + offset, then (it - mean) / std",
            f"    bands: {_flow(start.contract.bands)}    # in the model's order",
            *(
                [f"    sensor: {start.contract.sensor}    # whose numbers the files' bands have"]
                if start.contract.sensor
                else []
            ),
            f"    tile: {start.contract.tile}",
            f"    dtype: {found.dtype}",
            f"    quantity: {scalar(found.quantity)}",
            f"    scale: {found.scale!r}",
            *([f"    offset: {found.offset!r}"] if found.offset else []),
            *([f"    nodata: {found.nodata!r}"] if found.nodata is not None else []),
            "    # Mean and spread of the scenes below: write those that the model was trained with, if they are others.",
            f"    mean: {_flow(found.mean)}",
            f"    std: {_flow(found.std)}",
        ]
        lines.append(f"  classes: {_flow(start.classes)}    # of its outputs, in order")
    return "\n".join(lines) + "\n"


def _scenes(start: Start, folder: Path) -> str:
    bands = {"bands": list(start.file_bands)} if start.file_bands else {}

    def section(scene: str | Path) -> dict[str, Any]:
        return {"path": _seen(scene, folder), **bands} if isinstance(scene, Path) else {"source": scene}

    judge = section(start.scenes[-1])
    if start.labels is not None:
        path = _seen(start.labels, folder)
        judge["labels"] = {"path": path, "map": start.label_map} if start.label_map else path
    train = "\n".join(f"    - {_flow(section(scene))}" for scene in start.scenes)
    test = "\n".join(f"    {key}: {_flow(value)}" for key, value in judge.items())
    block = "" if start.block == 64 else f"  block: {start.block}                  # edge of a spatial block (pixels)\n"
    return f"""\
  train:                     # distillation needs no labels, only scenes like those the student will see
{train}
  test:                      # judges every artefact, on spatial blocks that nothing else ever sees
{test}
    fraction: 0.25
  selection: {{fraction: 0.15}}  # further blocks, for choices: when to stop, what to prune, which INT8 settings
  calibration: {{tiles: 64}}   # sets the ranges of the INT8 model
{block}"""


def _samples(start: Start, folder: Path) -> str:
    source = (
        _chips(start.chips, folder)
        if start.chips
        else f"""\
  samples: {{source: {scalar(start.samples or "")}}}    # `rsedge sources` says where its files must lie
"""
    )
    return f"""\
{source}\
  test: {{fraction: 0.25}}     # judges every artefact: whole groups that nothing else ever sees
  selection: {{fraction: 0.15}}  # further groups, for choices: when to stop, what to prune, which INT8 settings
  calibration: {{tiles: 64}}   # sets the ranges of the INT8 model
"""


def _chips(chips: Chips, folder: Path) -> str:
    found, labelled = chips.numbers, bool(chips.classes)
    options = {
        "folder": _seen(chips.folder, folder), "tile": chips.tile, "labels": "folders" if labelled else "none",
        **({"classes": list(chips.classes)} if labelled else {}),
        **({"bands": list(chips.bands)} if chips.bands else {}),
        **({"scale": found.scale} if found.scale != 1 else {}),
        **({"offset": found.offset} if found.offset else {}),
    }  # fmt: skip
    lines = "\n".join(f"      {key}: {_flow(value)}" for key, value in options.items())
    return f"""\
  samples:
    source: chips            # images in a folder; distillation needs no labels
    options:
{lines}
"""


def _seen(path: str | Path, folder: Path) -> str:
    """A file as a recipe in ``folder`` names it: absolute ones as they are, others from there."""
    path = Path(path)
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def _flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value) if isinstance(value, str) else repr(value)


def scalar(text: str) -> str:
    """A YAML scalar: bare where that is safe, quoted otherwise."""
    plain = text.replace("-", "").replace("_", "").replace("/", "").replace(".", "")
    word = (
        plain.isalnum()
        and not plain[0].isdigit()
        and text.lower() not in ("true", "false", "null", "yes", "no", "on", "off")
    )
    return text if word and text[0] not in "-./" else json.dumps(text)
