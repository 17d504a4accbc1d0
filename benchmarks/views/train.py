"""Trains a recipe's student on other views: equal steps, one folder an arm and seed, nothing but distillation.

    python benchmarks/views/train.py benchmarks/views/cloud-mask-views.yaml runs/views --arms "old views" "changes" --seeds 0 1

An arm is what it sets in the recipe (:data:`ARMS`). No step is chosen: the students are the averaged weights of the last one.
What is done is left alone, what was interrupted goes on. ``degrade.py`` judges the folders.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from pathlib import Path

import torch

from rsedge.compress.distill.hard_views import trust_of
from rsedge.compress.distill.teacher_cache import TeacherCache
from rsedge.compress.distill.teacher_outputs import AskTeacher, ChangedOutputs, cached_outputs, choose_source
from rsedge.compress.distill.training import DistillSettings, distill
from rsedge.data.files import sha256_of, write_json
from rsedge.models.structure import STRUCTURE_FILE, save_model
from rsedge.models.students import build_student, contract_arguments
from rsedge.models.teachers import Teacher
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.stages.context import prepare_torch
from rsedge.stages.teacher_model import openvino_teacher, recipe_teacher
from rsedge.tasks.scene_data import load_scenes, role_views

CHANGES = ("data.augment.changes=0.5",)
MATERIALS = ("data.augment.materials=0.4",)
HARD = ("steps.distill.hard_views=0.5",)
STEADY = (
    "data.augment.changes=0.6",
    "data.augment.at_once=4",
    "data.augment.steady=true",
    "data.augment.kinds=[resolution, gain, band-gain, offset, noise, band-shift, haze, low-sun]",
)
ARMS = {
    "old views": (),
    "changes": CHANGES,
    "materials": MATERIALS,
    "steady changes": STEADY,
    "changes and materials": CHANGES + MATERIALS,
    "changes, hard views": CHANGES + HARD,
    "changes and materials, hard views": CHANGES + MATERIALS + HARD,
    "changes of six kinds": (*CHANGES, "data.augment.kinds=[resolution, offset, noise, levels, haze, dark-ground]"),
    "changes of the other six": (
        *CHANGES,
        "data.augment.kinds=[gain, band-gain, stripes, band-shift, low-sun, bright-ground]",
    ),
}
"""What each sets; kinds that an arm was not trained with are held out by it."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe over scenes")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    return parser.parse_args()


def settings_of(recipe: Recipe) -> DistillSettings:
    """The recipe's own, of what training itself knows: losses are those of class maps, and nothing is tapped."""
    known = {f.name for f in dataclasses.fields(DistillSettings)} - {"loss", "taps"}
    return DistillSettings(**recipe.distill.model_dump(include=known))


def train(recipe: Recipe, teacher: Teacher, ask: AskTeacher, folder: Path) -> None:
    """The student of one recipe, into ``folder``."""
    spec, classes = teacher.spec.input_spec, teacher.spec.classes
    views = role_views(recipe, spec, load_scenes(recipe, spec, classes), "train", recipe.seed)
    count = recipe.distill.views
    key = sha256_of([recipe.data.model_dump(mode="json"), recipe.seed])
    settings, trust = settings_of(recipe), None
    place = folder / "cache" / key[:32]
    kept = choose_source(views, ask, count, settings.steps * settings.batch, place, "always", classes=True).record
    made = cached_outputs(TeacherCache(place, kept), views, ask, spec.normalise, count)
    source = ChangedOutputs(made, views.changed, recipe.seed) if recipe.scenes.augment.steady else made
    if settings.hard_views:
        trust = trust_of(source, views.unchanged, ask, settings.loss, folder / "trust.npz", key)
    torch.manual_seed(recipe.seed)
    kwargs = {
        **contract_arguments(recipe.student.name, spec, len(classes), teacher.spec.finer),
        **recipe.student.options,
    }
    student = build_student(recipe.student.name, kwargs)
    trained, record = distill(source, student, settings, folder, recipe.seed, trust=trust)
    save_model(trained.eval(), folder / "model", recipe.student.name, kwargs)
    write_json(folder / "record.json", {"steps": record.steps, "seconds": record.seconds, "loss": record.history[-1:]})


def main() -> None:
    given = arguments()
    first = load_recipe(given.recipe, [])
    prepare_torch("cpu", first.threads)
    teacher = recipe_teacher(first.teacher)
    spec = teacher.spec.input_spec
    run = openvino_teacher(teacher, spec, first.threads)
    for seed in given.seeds:
        for arm in given.arms:
            folder = given.folder / f"{arm}, seed {seed}"
            if (folder / "model" / STRUCTURE_FILE).exists():
                continue
            begun = time.perf_counter()
            train(
                load_recipe(given.recipe, [f"seed={seed}", *ARMS[arm]]),
                teacher,
                lambda dn: run(spec.normalise(dn)),
                folder,
            )
            print(f"{folder}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
