"""Class maps of scenes: tiles that cover held-out blocks judge, augmented views of the other blocks teach."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_of
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.confusion import map_likeness
from rsedge.data.metrics.samples import Kind
from rsedge.data.scenes.augment import ViewGenerator
from rsedge.data.scenes.kinds import kind_of
from rsedge.recipe.survey import check_contract
from rsedge.reports.images import cases
from rsedge.results.data import Data
from rsedge.tasks.base import Arrays, Change, HeldOut, HeldOutRole, Inputs, JudgedGrid, Labels, Prediction, Task, Views
from rsedge.tasks.judging import NODATA_CLASS, agreement, kept_classes, tile_comparisons, unpredicted
from rsedge.tasks.pictures import first, map_assets, named
from rsedge.tasks.scene_data import JudgedTiles, SplitScene, data_stage, largest_scene, load_scenes, role_views, serves


@dataclass(frozen=True)
class SceneHeldOut(HeldOut):
    """Tiles that cover the blocks of one role."""

    tiles: JudgedTiles
    classes: tuple[str, ...]

    def few(self, count: int) -> SceneHeldOut:
        picks = self.tiles.few(count)
        return replace(self, inputs=self.inputs[picks], tiles=self.tiles.at(picks))

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        return agreement(found, reference, self.tiles)

    @property
    def unit(self) -> str:
        return "blocks"

    def comparisons(self, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        return tile_comparisons(found, reference, self.tiles, self.classes)

    def metrics(self, found: Prediction, reference: Prediction) -> dict[str, Any]:
        """Beside figures and details, ``unpredicted``: labelled pixels without a prediction."""
        record = super().metrics(found, reference)
        return record | {"unpredicted": unpredicted(found, self.tiles)} if self.labelled else record


class SceneTask(Task[SceneHeldOut]):
    """Segmentation."""

    output = "map"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._folder: Path
        self._held_out: dict[HeldOutRole, SceneHeldOut] = {}

    @cached_property
    def split_scenes(self) -> Sequence[SplitScene]:
        return load_scenes(self.recipe, self.spec, self.classes)

    @cached_property
    def inputs_key(self) -> str:
        return sha256_of([_scene_key(s) for s in self.split_scenes])

    @property
    def kind(self) -> Kind:
        return "classes"

    def data_stage(self, context: StageContext) -> Data:
        check_contract(self.recipe, self.spec, self.classes)
        return data_stage(context, self.recipe, self.spec, self.split_scenes, self.classes)

    def load(self, folder: Path) -> None:
        self._folder = folder

    def held_out(self, role: HeldOutRole) -> SceneHeldOut:
        if role not in self._held_out:
            tiles = JudgedTiles.load(self._folder / f"{role}.npz")
            note = tiles.note(role, self.classes)
            self._held_out[role] = SceneHeldOut(
                tiles.labelled, note, self.recipe.seed, role, tiles.dn, tiles, self.classes
            )
        return self._held_out[role]

    def whole_scene(self) -> Inputs | None:
        return largest_scene(self.spec, self.split_scenes)

    def training_views(self) -> Views:
        return self._views

    def unchanged_views(self) -> Callable[[int], Inputs | None]:
        return self._views.unchanged

    def change(self) -> Change | None:
        augment = self.recipe.scenes.augment
        return self._views.changed if augment.steady and augment.changes else None

    @cached_property
    def _views(self) -> ViewGenerator:
        return role_views(self.recipe, self.spec, self.split_scenes, "train", self.recipe.seed)

    def view_labels(self, seed: int) -> Labels:
        """Of labelled scenes, where a view shows the ground as it was labelled."""
        there = (s.scene.labels[s.split.mask("train") & s.scene.valid] for s in self.split_scenes
                 if serves(s, "train") and s.scene.labels is not None)  # fmt: skip
        if not any((labels < len(self.classes)).any() for labels in there):
            raise RequestError(
                "steps.distill.labels: no scene that trains has labels; leave labels out, or train on a labelled scene"
            )
        return role_views(self.recipe, self.spec, self.split_scenes, "train", seed, len(self.classes)).labels

    def selection_views(self, count: int) -> Inputs:
        views = role_views(self.recipe, self.spec, self.split_scenes, "selection", self.recipe.seed + 2)
        return np.stack([views(i) for i in range(count)])

    def keep(self, outputs: Arrays) -> Prediction:
        return kept_classes(outputs)

    def keep_logits(self, logits: np.ndarray) -> Prediction:
        return logits.argmax(1).astype(np.uint8)

    def shown(self, test: SceneHeldOut, teacher: Prediction) -> Arrays:
        tiles = test.tiles
        index = first(-tiles.counted.sum((1, 2)))
        known = [np.where(tiles.counted[i], tiles.labels[i], NODATA_CLASS) for i in index] if tiles.labelled else []
        return named(index, test, teacher, known) | {"share": tiles.counted[index].mean((1, 2))}

    def pictures(self, kept: Arrays, student: Prediction) -> dict[str, list[Any]]:
        return {"tiles": map_assets(self.spec, kept, student)}

    def judged_grid(self) -> JudgedGrid | None:
        section = self.recipe.scenes.test
        if section.path is None or section.simulated_clouds:
            return None
        with contextlib.closing(kind_of(section.path).open(section.path, self.spec, section.sensor)) as file:
            found = JudgedGrid(file.height, file.width, file.crs, file.transform, file.points(), section.path)
        return found if found.crs is not None or found.points else None

    def cases(self, test: SceneHeldOut, teacher: Prediction, student: Prediction) -> npt.NDArray[np.uint8] | None:
        """None of named scenes, and of simulated clouds, under which a pixel has several labels."""
        section = self.recipe.scenes.test
        if section.path is None or section.simulated_clouds:
            return None
        (judged,) = (s.scene for s in self.split_scenes if serves(s, "test"))
        height, width = judged.valid.shape
        return test.tiles.on_scene(cases(teacher, student, test.tiles.labels), (height, width))

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return map_likeness(found, reference, len(self.classes))


def _scene_key(scene: SplitScene) -> list[Any]:
    """What was read, beside the file's hash: a mask may lie beside a file, or a table of its bands."""
    read = scene.scene
    arrays = [a for a in (read.image, read.valid, read.labels) if a is not None]
    known = [read.name, read.sha256, read.bands, read.gsd_m, read.sensor, read.bounds, read.taken]
    return [*known, *(hashlib.sha256(np.ascontiguousarray(a).data).hexdigest() for a in arrays)]
