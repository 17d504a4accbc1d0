"""Which task a recipe's data and its teacher's output make."""

from __future__ import annotations

from collections.abc import Sequence

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.recipe.data import DataSection
from rsedge.recipe.schema import Recipe
from rsedge.tasks.base import Task
from rsedge.tasks.boxes import BoxTask
from rsedge.tasks.captions import CaptionTask
from rsedge.tasks.maps import MapTask
from rsedge.tasks.samples import SampleTask
from rsedge.tasks.scenes import SceneTask


def make_task(recipe: Recipe, spec: InputSpec, classes: Sequence[str], kind: str) -> Task:
    """The task of a recipe whose teacher's row says ``kind``.

    Raises:
        RequestError: its data do not go with what the teacher takes and gives.
    """
    name, maps = recipe.teacher.name, kind == "segmentation"
    if isinstance(recipe.data, DataSection):
        if not maps or spec.layout != "CHW":
            gives = (
                "boxes"
                if kind == "detection"
                else "one vector per sample"
                if not maps
                else f"maps of {spec.frames} dates"
            )
            raise RequestError(f"data: '{name}' gives {gives}; name its samples under data.samples (`rsedge sources`)")
        return SceneTask(recipe, spec, tuple(classes))
    if kind == "detection":
        return BoxTask(recipe, spec, tuple(classes))
    if recipe.samples.augment.zoom:
        raise RequestError("data.augment.zoom: only images with boxes are zoomed; leave it out")
    if kind == "captioning":
        return CaptionTask(recipe, spec, tuple(classes))
    if maps:
        return MapTask(recipe, spec, tuple(classes))
    return SampleTask(recipe, spec, tuple(classes), kind)
