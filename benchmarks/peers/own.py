"""rsedge's own contenders: the recipe up to its INT8 student, the teacher itself in INT8, and the teacher in f32, against which
times are told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from contender import Made
from material import Material, open_material

from rsedge.compress.prune.plan import count_macs
from rsedge.results.records import Prune, Quantize, Teacher
from rsedge.stages.training import example_input


def make(material: Material, folder: Path, what: str) -> Made:
    """One of :data:`WAYS`."""
    return WAYS[what](material)


def _teacher(material: Material) -> Made:
    return Made(model=str(material.teacher), precision="f32", macs=material.line.stages.results.of(Teacher).macs)


def _student(material: Material) -> Made:
    recipe = material.ctx.recipe
    recovery = 0 if recipe.prune is None else recipe.prune.steps * recipe.prune.recovery_steps
    made = _rounded(material)
    notes = made.notes
    if recipe.prune is not None:
        cut = open_material(material.case, material.seed, "prune").line.stages.results.of(Prune).record
        notes = (f"{sum(step.outcome == 'applied' for step in cut.steps)} of {len(cut.steps)} cuts kept", *notes)
    return made.model_copy(update={"steps": recipe.distill.steps + recovery, "notes": notes})


def _teacher_int8(material: Material) -> Made:
    """The recipe's INT8 search on the teacher itself: nothing is taught or cut."""
    section = material.ctx.recipe.quantize
    assert section is not None
    quantize = {"max_trials": section.max_trials, "max_drop": section.max_drop, "hosts": section.hosts}
    steps = json.dumps([{"distill": {"steps": 0}}, {"quantize": quantize}])
    case = material.case
    settings = (*case.settings, "student={name: teacher}", f"steps={steps}")
    itself = dataclasses.replace(case, name=f"{case.name}-itself", settings=settings)
    return _rounded(open_material(itself, material.seed))


def _rounded(material: Material) -> Made:
    done = open_material(material.case, material.seed, "quantize")
    found = done.line.stages.results.of(Quantize)
    assert found.chosen is not None
    return Made(
        model=str(done.ctx.folders["quantize"] / "student-int8.xml"),
        macs=count_macs(done.ctx.student(done.ctx.shipped), example_input(done.ctx.spec)),
        notes=(f"INT8 {found.outcome}: {found.chosen.label()}",),
    )


WAYS: dict[str, Callable[[Material], Made]] = {"teacher": _teacher, "student": _student, "teacher-int8": _teacher_int8}
