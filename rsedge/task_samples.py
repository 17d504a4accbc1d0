"""Vectors of samples (chips, series, places): held-out groups judge, varied samples of the other groups teach."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data import sample_metrics
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.evidence import Statistic, Statistics
from rsedge.data.files import atomic_path, sha256_of, write_json
from rsedge.data.sample_metrics import Kind, kind_of
from rsedge.data.sample_sources import load_samples
from rsedge.data.sample_views import SampleViews, SampleViewSettings, group_folds
from rsedge.data.samples import Samples
from rsedge.recipe import Recipe
from rsedge.runtimes.session import LOGITS
from rsedge.stage import StageContext
from rsedge.tasks import Arrays, Inputs, Kept, Task, Views

CALIBRATION_SHARE = 0.2
"""Of the samples that are not held out: they set INT8 ranges and are not trained on."""
Index = npt.NDArray[np.intp]
ROLES = ("train", "calibration", "validation")


class SampleTask(Task):
    """Classification (one label, several, yes or no), regression and embedding of samples."""

    output: Literal["map", "vector", "boxes", "tokens"] = "vector"

    def __init__(self, recipe: Recipe, spec: InputSpec, classes: tuple[str, ...], task: str) -> None:
        super().__init__(recipe, spec, classes)
        self.task = task

    @cached_property
    def samples(self) -> Samples:
        section = self.recipe.samples.samples
        return self.drawn(load_samples(section.source, section.root, **section.options))

    def drawn(self, found: Samples) -> Samples:
        """As many of the samples as the recipe takes."""
        limit = self.recipe.samples.samples.limit
        if limit is None or len(found) <= limit:
            return found
        picks = np.random.default_rng([self.recipe.seed, 7]).choice(len(found), limit, replace=False)
        return found.take(np.sort(picks))

    @cached_property
    def dn(self) -> Inputs:
        return self.samples.dn(self.spec)

    @cached_property
    def kind(self) -> Kind:
        return kind_of(self.task, len(self.classes), self.samples.labels)

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        group = self.samples.group
        return np.array([str(i) for i in range(len(self.samples))]) if group is None else group

    @cached_property
    def roles(self) -> dict[str, Index]:
        """Sample numbers per role; the publisher's split where there is one, else whole groups."""
        held_out = self._held_out()
        rest = np.flatnonzero(~held_out)
        if not len(rest):
            raise RequestError("data: no sample is left to train on; lower data.fraction")
        rng = np.random.default_rng([self.recipe.seed, 8])
        wanted = min(self.recipe.data.calibration.tiles, max(1, round(CALIBRATION_SHARE * len(rest))))
        calibration = np.sort(rng.permutation(rest)[:wanted])
        return {"train": np.setdiff1d(rest, calibration), "calibration": calibration,
                "validation": np.flatnonzero(held_out)}  # fmt: skip

    def _held_out(self) -> npt.NDArray[np.bool_]:
        if self.folds > 1:
            return np.asarray(self.fold_of == 0)
        split = self.samples.split
        if split is not None and (split != "train").any() and (split == "train").any():
            return np.asarray(split != "train")
        parts = max(2, round(1 / self.recipe.samples.fraction))
        return group_folds(self.groups, parts, self.recipe.seed) == 0

    @property
    def folds(self) -> int:
        return self.recipe.samples.folds

    @cached_property
    def fold_of(self) -> npt.NDArray[np.int64]:
        """Fold number of each sample; fold 0 is the validation split."""
        return group_folds(self.groups, self.folds, self.recipe.seed)

    @property
    def inputs_key(self) -> str:
        return sha256_of([self.samples.name, self.samples.sha256, self.dn.tobytes().hex()])

    def data_stage(self, context: StageContext) -> dict[str, Any]:
        with atomic_path(context.folder / "calibration.npz") as temporary, temporary.open("wb") as f:
            np.savez_compressed(f, dn=self._calibration())
        manifest = self._manifest()
        write_json(context.folder / "manifest.json", manifest)
        return {"manifest_sha256": sha256_of(manifest), **manifest}

    def _calibration(self) -> Inputs:
        """As many views of calibration samples as asked for, so that ranges hold what varied samples reach."""
        tiles = self.recipe.data.calibration.tiles
        if not tiles:
            return self.dn[:0]
        views = self.views_of(self.roles["calibration"], self.recipe.seed + 1)
        return np.stack([views(i) for i in range(tiles)])

    def _manifest(self) -> dict[str, Any]:
        labelled = self.samples.labels is not None
        splits = {
            role: {"scenes": sorted(set(self.groups[index].tolist()))[:50] if self.samples.group is not None else [],
                   "pixels": None, "tiles": len(index), "labelled": labelled and role == "validation"}
            for role, index in self.roles.items()
        }  # fmt: skip
        return {
            "seed": self.recipe.seed, "splits": splits, "scenes": {}, "blocks": [],
            "samples": {"name": self.samples.name, "sha256": self.samples.sha256, "count": len(self.samples),
                        "groups": len(set(self.groups.tolist())), "folds": self.folds},
            "validation_sha256": sha256_of(self.inputs.tobytes().hex()),
        }  # fmt: skip

    def load(self, folder: Path) -> None:
        """Nothing to read: samples are judged as they are."""

    @property
    def inputs(self) -> Inputs:
        return self.dn[self.roles["validation"]]

    @property
    def labelled(self) -> bool:
        return self.samples.labels is not None

    def views_of(self, index: Index, seed: int) -> SampleViews:
        """Varied samples of those numbered in ``index``."""
        settings = SampleViewSettings(**self.recipe.samples.augment.model_dump())
        return SampleViews(self.dn[index], self.spec, settings, seed)

    def training_views(self) -> Views:
        return self.views_of(self.roles["train"], self.recipe.seed)

    def held_out_views(self, count: int) -> Inputs:
        views = self.views_of(self.roles["validation"], self.recipe.seed + 2)
        return np.stack([views(i) for i in range(count)])

    def keep(self, outputs: Arrays) -> Kept:
        return np.asarray(outputs[LOGITS][0], dtype=np.float32)

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Kept:
        return logits.astype(np.float32)

    def agreement(self, found: Kept, reference: Kept) -> float:
        return sample_metrics.agreement(self.kind, found, reference)

    def view_likeness(self, found: Kept, reference: Kept) -> float:
        return sample_metrics.likeness(self.kind, found, reference)

    def metrics(self, found: Kept, reference: Kept) -> dict[str, Any]:
        return self.metrics_of(self.roles["validation"], found, reference)

    def statistics(self, found: Kept, reference: Kept) -> Statistics:
        return Statistics(self.unit, self.statistics_of(self.roles["validation"], found, reference))

    @property
    def unit(self) -> str:
        """What samples are held out by, and what intervals draw."""
        return "samples" if self.samples.group is None else "groups"

    def metrics_of(self, index: Index, found: Kept, reference: Kept) -> dict[str, Any]:
        """As :meth:`metrics`, for the samples numbered in ``index``."""
        labels = self.samples.labels
        return sample_metrics.sample_metrics(
            self.kind, found, reference, None if labels is None else labels[index], self.classes, self.groups[index]
        )

    def statistics_of(self, index: Index, found: Kept, reference: Kept) -> dict[str, Statistic]:
        """What :meth:`metrics_of` and :meth:`agreement` give, by groups, for their intervals."""
        labels = self.samples.labels
        return sample_metrics.sample_statistics(
            self.kind,
            found,
            reference,
            None if labels is None else labels[index],
            len(self.classes),
            self.groups[index],
        )
