"""Class maps of scenes: tiles that cover held-out blocks judge, augmented views of the other blocks teach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.evidence import Statistics
from rsedge.data.files import sha256_of
from rsedge.data.metrics import map_likeness
from rsedge.data.sample_metrics import Kind
from rsedge.judging import agreement, kept_classes, metrics, statistics
from rsedge.recipe import Recipe
from rsedge.stage import StageContext
from rsedge.stages_data import SplitScene, ValidationTiles, data_stage, load_scenes, training_views
from rsedge.survey_scenes import check_contract
from rsedge.tasks import Arrays, Inputs, Kept, Task, Views


class SceneTask(Task):
    """Segmentation."""

    output = "map"

    def __init__(self, recipe: Recipe, spec: InputSpec, classes: tuple[str, ...]) -> None:
        super().__init__(recipe, spec, classes)
        self.tiles: ValidationTiles

    @cached_property
    def split_scenes(self) -> Sequence[SplitScene]:
        return load_scenes(self.recipe, self.spec, self.classes)

    @property
    def inputs_key(self) -> str:
        return sha256_of([_scene_key(s) for s in self.split_scenes])

    @property
    def kind(self) -> Kind:
        return "classes"

    def data_stage(self, context: StageContext) -> dict[str, Any]:
        check_contract(self.recipe, self.spec, self.classes)
        return data_stage(context, self.recipe, self.spec, self.split_scenes)

    def load(self, folder: Path) -> None:
        self.tiles = ValidationTiles.load(folder / "validation.npz")

    @property
    def inputs(self) -> Inputs:
        return self.tiles.dn

    @property
    def labelled(self) -> bool:
        return self.tiles.labelled

    def training_views(self) -> Views:
        return training_views(self.recipe, self.spec, self.split_scenes, "train", self.recipe.seed)

    def held_out_views(self, count: int) -> Inputs:
        views = training_views(self.recipe, self.spec, self.split_scenes, "validation", self.recipe.seed + 2)
        return np.stack([views(i) for i in range(count)])

    def keep(self, outputs: Arrays) -> Kept:
        return kept_classes(outputs)

    def keep_logits(self, logits: np.ndarray) -> Kept:
        return logits.argmax(1).astype(np.uint8)

    def agreement(self, found: Kept, reference: Kept) -> float:
        return agreement(found, reference, self.tiles)

    def view_likeness(self, found: Kept, reference: Kept) -> float:
        return map_likeness(found, reference, len(self.classes))

    def metrics(self, found: Kept, reference: Kept) -> dict[str, Any]:
        return metrics(found, self.tiles, self.classes)

    def statistics(self, found: Kept, reference: Kept) -> Statistics:
        return Statistics("blocks", statistics(found, reference, self.tiles, len(self.classes)))


def _scene_key(scene: SplitScene) -> list[str]:
    labels = scene.scene.labels
    return [scene.scene.name, scene.scene.sha256, "" if labels is None else sha256_of(labels.tobytes().hex())]
