"""Which task a recipe's data and its teacher's output make: one row per kind of teacher. A new task is its module and a row."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.zoo import Task as TeacherTask
from rsedge.recipe.data import DataSection
from rsedge.recipe.schema import Recipe
from rsedge.tasks.base import Task


@dataclass(frozen=True)
class TaskRow:
    """What is made for one kind of teacher.

    Attributes:
        of_samples: the task over samples, ``module:class`` under ``rsedge.tasks``.
        gives: what a teacher gives, where its data must be samples.
        of_scenes: the task over scenes; None where there is none.
        zooms: whether ``augment.zoom`` does something.
    """

    of_samples: str
    gives: str
    of_scenes: str | None = None
    zooms: bool = False


TASKS: Mapping[TeacherTask, TaskRow] = {
    "segmentation": TaskRow("maps:MapTask", "maps of {frames} dates", "scenes:SceneTask"),
    "classification": TaskRow("samples:SampleTask", "one vector per sample"),
    "embedding": TaskRow("samples:SampleTask", "one vector per sample"),
    "regression": TaskRow("samples:SampleTask", "one vector per sample"),
    "detection": TaskRow("boxes:BoxTask", "boxes", zooms=True),
    "captioning": TaskRow("captions:CaptionTask", "image tokens"),
    "super-resolution": TaskRow("finer:FinerTask", "a finer image"),
    "features": TaskRow("features:FeatureTask", "a map of features"),
}
"""By what the teacher's row says that it does."""


def make_task(
    recipe: Recipe, spec: InputSpec, classes: Sequence[str], does: TeacherTask, finer: int = 1, stride: int = 1
) -> Task[Any]:
    """The task of a recipe whose teacher's row says ``does``; ``finer``: how many times finer an image is that it gives;
    ``stride``: how coarse a map of features.

    Raises:
        RequestError: its data do not go with what the teacher takes and gives.
    """
    row, place = TASKS[does], ""
    if isinstance(recipe.data, DataSection):
        if row.of_scenes is None or spec.layout != "CHW":
            gives = row.gives.format(frames=spec.frames)
            raise RequestError(
                f"data: '{recipe.teacher.name}' gives {gives}; name its samples under data.samples (`rsedge sources`)"
            )
        place = row.of_scenes
    elif recipe.samples.augment.zoom and not row.zooms:
        raise RequestError("data.augment.zoom: only images with boxes are zoomed; leave it out")
    module, _, name = (place or row.of_samples).partition(":")
    made: type[Task[Any]] = getattr(importlib.import_module(f"rsedge.tasks.{module}"), name)
    return made(recipe, spec, tuple(classes), does, finer, stride)
