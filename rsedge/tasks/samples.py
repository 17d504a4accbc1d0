"""Vectors of samples (chips, series, places): held-out groups judge, varied samples of the other groups teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.band_names import sensor_warnings
from rsedge.data.band_values import saturation
from rsedge.data.calibration import save_calibration, spread_over_groups
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_of, write_json
from rsedge.data.metrics import samples as sample_metrics
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.samples import Kind, kind_of
from rsedge.data.metrics.statistics import Units
from rsedge.data.paged import sha256_with_arrays
from rsedge.data.samples.copies import copy_numbers, joined, repeated
from rsedge.data.samples.guard import GUARD, LEAST_KEPT, NO_GUARD, beside, guarded
from rsedge.data.samples.near import near_numbers
from rsedge.data.samples.samples import Samples
from rsedge.data.samples.views import MadeView, SampleViews, SampleViewSettings, group_folds, held_out_groups
from rsedge.data.scenes.splits import HELD_OUT, few_words
from rsedge.data.sets.sample_sources import load_samples
from rsedge.results.data import Data
from rsedge.runtimes.session import LOGITS
from rsedge.tasks.base import (
    Arrays,
    Folds,
    HeldOut,
    HeldOutRole,
    Index,
    Inputs,
    Judge,
    Labels,
    Prediction,
    ProbeSamples,
    Task,
    Views,
)

if TYPE_CHECKING:
    from rsedge.export.onnx.graph import Output

CALIBRATION_SHARE = 0.2
"""Of the samples that are not held out: they set INT8 ranges and are not trained on."""
LEFT_OUT = "left out"
"""Of a publisher's split: what another role holds again."""
NEAR_COPIES = (
    "are near copies of others (flipped, turned, shifted a little, rounded, in another scale or with little noise)"
)


@dataclass(frozen=True)
class SampleJudge(Judge):
    """Judges the samples that ``index`` numbers in the whole set."""

    task: SampleTask
    index: Index

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        return self.task.agreement(found, reference)

    @property
    def unit(self) -> str:
        return self.task.units.word

    def comparisons(self, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        return self.task.comparisons_of(self.index, found, reference)


@dataclass(frozen=True)
class SampleHeldOut(SampleJudge, HeldOut):
    """The samples of one role."""

    def few(self, count: int) -> SampleHeldOut:
        picks = np.unique(np.linspace(0, len(self.index) - 1, min(count, len(self.index))).round().astype(np.intp))
        return replace(self, inputs=self.inputs[picks], index=self.index[picks])


class SampleTask(Task[SampleHeldOut]):
    """Classification (one label, several, yes or no), regression and embedding of samples."""

    output: Output = "vector"

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
        return kind_of(self.does, len(self.classes), self.samples.labels)

    @cached_property
    def equal(self) -> Index:
        """(N,) numbers of what the samples hold; those that hold the same values have the same."""
        return copy_numbers(self.dn)

    @cached_property
    def copies(self) -> Index:
        """(N,) numbers of what the samples show; copies and near copies of one another have the same."""
        return near_numbers(self.dn, self.spec.layout, [band.nodata for band in self.spec.bands], self.equal)

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """(N,) what stands on one side of every split: the set's groups, those that hold copies of one another as one."""
        group = self.samples.group
        own = np.array([str(i) for i in range(len(self.samples))]) if group is None else group
        return joined(own, self.copies)

    @cached_property
    def units(self) -> Units:
        """(N,) what intervals draw: blocks of the groups where they are known, else the groups."""
        block = self.samples.block
        if block is not None:
            return Units("blocks", np.char.add(np.char.add(self.groups, "/"), block))
        return Units("samples" if self.samples.group is None else "groups", self.groups)

    @cached_property
    def roles(self) -> dict[str, Index]:
        """Sample numbers per role; the publisher's split where there is one, else whole groups.

        What a publisher's split has in several roles stays in the most sheltered of them: test, then selection. What calibrates
        touches no held-out tile of its image even where there is no room for a guard, as long as there is one that does not.
        """
        where = self._held_out
        rest = np.flatnonzero(where == "train")
        if not len(rest):
            raise RequestError(
                "data: no sample is left to train on; lower data.test.fraction or data.selection.fraction"
            )
        rng = np.random.default_rng([self.recipe.seed, 8])
        asked = self.recipe.data.calibration
        wanted = min(asked.tiles * asked.draws, max(1, round(CALIBRATION_SHARE * len(rest))))
        apart = rest[~self._beside(np.isin(where, HELD_OUT))[rest]]
        drawn = apart if len(apart) else rest
        calibration = drawn[spread_over_groups(self.groups[drawn], wanted, rng)]
        return {"train": np.setdiff1d(rest, calibration), "calibration": calibration,
                **{role: np.flatnonzero(where == role) for role in HELD_OUT}}  # fmt: skip

    @property
    def _held_out(self) -> npt.NDArray[np.str_]:
        """(N,) ``train``, ``selection`` or ``test``; :data:`LEFT_OUT` or :data:`GUARD` for what has no role."""
        return self._dealt if self._guarded is None else self._guarded

    @cached_property
    def _guarded(self) -> npt.NDArray[np.str_] | None:
        """Roles with the guard between tiles of one image; None where there are none, or no room for it."""
        cells = self.samples.cells
        return None if cells is None else guarded(self._dealt, cells)

    @cached_property
    def _dealt(self) -> npt.NDArray[np.str_]:
        """(N,) ``train``, ``selection`` or ``test``, or :data:`LEFT_OUT`: whole groups, before any guard.

        With folds the first judges, and what is held out for selection is in none.
        """
        published = self.samples.published()
        where = np.full(len(self.samples), "train", dtype="<U9")
        if published is not None:
            where[:] = published
        if self.fold_count > 1:
            where[where == "test"] = "train"
        where[repeated(where, self.copies)] = LEFT_OUT
        section = self.recipe.samples
        wanted = {"test": section.test.fraction, "selection": section.selection.fraction}
        for role in wanted if self.fold_count <= 1 else ["selection"]:
            if not (where == role).any():
                free = np.flatnonzero(where == "train")
                share = max(1, round(wanted[role] * len(where)))
                where[free[held_out_groups(self.groups[free], share, self.recipe.seed)]] = role
        if self.fold_count > 1:
            free = np.flatnonzero(where == "train")
            where[free[group_folds(self.groups[free], self.fold_count, self.recipe.seed) == 0]] = "test"
        return where

    @property
    def fold_count(self) -> int:
        return self.recipe.samples.folds

    @property
    def folds(self) -> Folds:
        if self.fold_count < 2:
            return super().folds
        judged = np.flatnonzero(self.fold_of >= 0)
        note = self.note("cross-validated", judged)
        return Folds(
            self.fold_count,
            SampleJudge(self.labelled, note, self.recipe.seed, self, judged),
            [np.flatnonzero(self.fold_of == fold) for fold in range(self.fold_count)],
            inputs=lambda fold: self.dn[self.fold_of == fold],
            known=self.other_folds,
            views=lambda fold, seed: self.views_of(self.other_folds(fold), seed),
            labels=lambda fold, seed: self.labels_of(self.other_folds(fold), seed),
            calibration=self.fold_calibration,
        )

    @cached_property
    def fold_of(self) -> npt.NDArray[np.int64]:
        """Fold number of each sample; fold 0 is the test set. What is held out for selection, or left out, is in no fold (-1)."""
        free = np.flatnonzero(np.isin(self._dealt, ("train", "test")))
        found = np.full(len(self.samples), -1, np.int64)
        found[free] = group_folds(self.groups[free], self.fold_count, self.recipe.seed)
        return found

    def other_folds(self, fold: int) -> Index:
        """What may teach a student that is judged on one fold: samples of the others, less the guard, where enough is left."""
        others = (self.fold_of != fold) & (self.fold_of >= 0)
        kept = others & ~self._near(fold)
        return np.flatnonzero(kept if kept.sum() >= LEAST_KEPT * others.sum() else others)

    def _near(self, fold: int) -> npt.NDArray[np.bool_]:
        """(N,) which tiles touch one of a fold, or of selection."""
        return self._beside((self.fold_of == fold) | (self._held_out == "selection"))

    def _beside(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(N,) which tiles of an image touch a chosen one; none where the samples are no such tiles."""
        cells = self.samples.cells
        return np.zeros(len(self.samples), bool) if cells is None else beside(cells, chosen)

    @cached_property
    def _touching(self) -> bool:
        """Whether tiles of two roles, or of a fold and what teaches for it, may touch."""
        folds = range(self.fold_count) if self.fold_count > 1 else ()
        return (self.samples.cells is not None and self._guarded is None) or any(
            self._near(fold)[self.other_folds(fold)].any() for fold in folds
        )

    @cached_property
    def inputs_key(self) -> str:
        return sha256_with_arrays([self.samples.digest(), self.dn])

    def data_stage(self, context: StageContext) -> Data:
        draws = range(self.recipe.data.calibration.draws)
        save_calibration(context.folder, [self.calibration_samples(self.roles["calibration"], draw) for draw in draws])
        manifest = self._manifest()
        write_json(context.folder / "manifest.json", manifest)
        return Data.model_validate({"manifest_sha256": sha256_of(manifest), **manifest})

    def calibration_samples(self, index: Index, draw: int = 0) -> Inputs:
        """Up to as many of the samples in ``index`` as set INT8 ranges, as they are, evenly from all groups.

        Where a further draw would find the same samples again, it draws with replacement.
        """
        section = self.recipe.data.calibration
        if not section.tiles:
            return self.dn[:0]
        if section.augmented:
            views = self.views_of(index, self.recipe.seed + 1)
            return np.stack([views(i) for i in range(draw * section.tiles, (draw + 1) * section.tiles)])
        rng = np.random.default_rng([self.recipe.seed, 12, draw])
        if draw and len(index) <= section.tiles:
            return self.dn[np.sort(rng.choice(index, len(index)))]
        return self.dn[index[spread_over_groups(self.groups[index], section.tiles, rng)]]

    def fold_calibration(self, fold: int) -> Inputs:
        """:meth:`calibration_samples` of the other folds; none that touches this one, as long as there is another."""
        others = self.other_folds(fold)
        apart = others[~self._near(fold)[others]]
        return self.calibration_samples(apart if len(apart) else others)

    def _manifest(self) -> dict[str, Any]:
        held_out = {role: self.held_out(role) for role in HELD_OUT}
        splits: dict[str, dict[str, Any]] = {
            role: {"scenes": sorted(set(self.groups[index].tolist()))[:50] if self.samples.group is not None else [],
                   "pixels": None, "tiles": len(index), "labelled": False, "note": None}
            for role, index in self.roles.items()
        }  # fmt: skip
        for role, held in held_out.items():
            splits[role] |= {"labelled": held.labelled, "note": held.note}
        values = self.samples.band_values(self.spec)
        fix = "the units given with the samples, or the teacher's scale, are others"
        return {
            "seed": self.recipe.seed, "splits": splits, "scenes": {}, "blocks": [],
            "bands": [v.model_dump() for v in values],
            "warnings": list(dict.fromkeys([*self._warnings(), *saturation(f"samples '{self.samples.name}'", values, fix)])),
            "samples": {"name": self.samples.name, "sha256": self.samples.sha256, "count": len(self.samples),
                        "groups": len(set(self.groups.tolist())), "folds": self.fold_count,
                        "equal": self._equal_count, "near": self._near_count},
            **{f"{role}_sha256": sha256_of(held.inputs.tobytes().hex()) for role, held in held_out.items()},
        }  # fmt: skip

    def _warnings(self) -> list[str]:
        """What is to be said of the samples: their reader's notes, and that some hold the same."""
        name, notes = f"samples '{self.samples.name}'", list(self.samples.notes)
        if self._touching:
            notes.append(NO_GUARD)
        if guard := int((self._held_out == GUARD).sum()):
            notes.append(
                f"{guard:,} tiles touch held-out ones of their image and are left out: the guard between roles"
            )
        left_out = int((self._held_out == LEFT_OUT).sum())
        if self._equal_count or self._near_count:
            counts = {"hold what others hold too": self._equal_count, NEAR_COPIES: self._near_count}
            more = f"; {left_out:,} that the publisher also holds out are left out of what trains and chooses"
            notes.append(
                " and ".join(f"{count:,} {what}" for what, count in counts.items() if count)
                + f"; copies stand on one side of every split{more if left_out else ''}"
            )
        others = [w for sensor in self.samples.sensors for w in sensor_warnings(name, sensor, self.spec.sensor)]
        return [*others, *(f"{name}: {note}" for note in notes)]

    @property
    def _equal_count(self) -> int:
        """How many hold what a sample before them holds."""
        return len(self.equal) - len(np.unique(self.equal))

    @property
    def _near_count(self) -> int:
        """How many more show what a sample before them shows."""
        return len(np.unique(self.equal)) - len(np.unique(self.copies))

    def load(self, folder: Path) -> None:
        """Nothing to read: samples are judged as they are."""

    def held_out(self, role: HeldOutRole) -> SampleHeldOut:
        index = self.roles[role]
        return SampleHeldOut(
            labelled=self.labelled, note=self.note(role, index), seed=self.recipe.seed, role=role, inputs=self.dn[index],
            task=self, index=index,
        )  # fmt: skip

    @property
    def probe_samples(self) -> ProbeSamples:
        labels, own = self.samples.labels, self.samples.classes
        if labels is None or labels.ndim > 2:
            return super().probe_samples
        if own != self.classes and sorted(own) == sorted(self.classes):
            raise RequestError(
                f"teacher.classes: the samples number their classes in the order {', '.join(own)}; name them so"
            )
        if labels.ndim == 1 and len(own) == 2 and self.classes == own[:1]:
            raise RequestError(
                f"teacher.classes: one class is the samples' class 1, which is '{own[1]}', not '{own[0]}'; name it, or both"
            )
        return ProbeSamples(self.dn, labels, self.groups, self.roles["train"])

    @property
    def labelled(self) -> bool:
        """Whether anything is known of the samples to judge outputs by."""
        return self.samples.labels is not None

    def note(self, role: str, index: Index) -> str | None:
        """What is to be said where these are few units, or labels without one of the classes."""
        known, absent = self._known(index) if self.labelled else (np.ones(len(index), bool), [])
        unit = self.units.word
        units = len(np.unique(self.units.at(index).of[known]))
        return few_words(role, units, f"{unit} with labels" if self.labelled else unit, absent)

    def _known(self, index: Index) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """Which samples have a label, and the classes of which there is none."""
        assert self.samples.labels is not None
        labels: npt.NDArray[Any] = self.samples.labels[index]
        if self.kind == "classes":
            return labels >= 0, [n for i, n in enumerate(self.classes) if not (labels == i).any()]
        table = labels.reshape(len(labels), -1).astype(np.float64)
        known = np.isfinite(table) & (table >= (0 if self.kind == "labels" else -np.inf))
        names = self.classes if self.kind == "labels" and table.shape[1] == len(self.classes) else ()
        return np.asarray(known.any(1)), [n for i, n in enumerate(names) if not (table[:, i] > 0).any()]

    def views_of(self, index: Index, seed: int) -> SampleViews:
        """Varied samples of those numbered in ``index``."""
        settings = SampleViewSettings(**self.recipe.samples.augment.model_dump())
        return SampleViews(self.dn[index], self.spec, settings, seed)

    def training_views(self) -> Views:
        return self.views_of(self.roles["train"], self.recipe.seed)

    def view_labels(self, seed: int) -> Labels:
        return self.labels_of(self.roles["train"], seed)

    def labels_of(self, index: Index, seed: int) -> Labels:
        """What is known of the views of :meth:`views_of`; of those that show several samples at once, or another place, nothing is.

        Raises:
            RequestError: the samples have no labels, or outputs of this kind none.
        """
        targets = self.label_targets()
        if targets is None or self.kind == "embedding":
            what = "outputs that are embeddings have none" if targets is not None else f"'{self.samples.name}' has none"
            raise RequestError(f"steps.distill.labels: there are no labels to learn from: {what}; leave labels out")
        views = self.views_of(index, seed)

        def labels(number: int) -> npt.NDArray[np.float32]:
            view = views.made(number)
            known = view.sample is not None and self.label_follows(view)
            one = targets[index[view.sample if known and view.sample is not None else 0]]
            return self.turned_label(one, view.turn) if known else np.full_like(one, np.nan)

        return labels

    def label_targets(self) -> npt.NDArray[np.float32] | None:
        """(N, ...) what students learn of labels, NaN or a negative class where unknown; None without labels."""
        labels = self.samples.labels
        if labels is None:
            return None
        found = labels.astype(np.float32)
        return found if self.kind == "classes" else found.reshape(len(found), -1)

    def label_follows(self, view: MadeView) -> bool:
        """Whether what is known of a sample is known of a view of it alone."""
        return True

    def turned_label(self, label: npt.NDArray[np.float32], turn: int) -> npt.NDArray[np.float32]:
        """A sample's label as its turned image has it."""
        return label

    def selection_views(self, count: int) -> Inputs:
        views = self.views_of(self.roles["selection"], self.recipe.seed + 2)
        return np.stack([views(i) for i in range(count)])

    @property
    def output_names(self) -> tuple[str, ...]:
        return (f"{len(self.classes)} outputs",) if self.kind == "embedding" else self.classes

    def keep(self, outputs: Arrays) -> Prediction:
        return np.asarray(outputs[LOGITS][0], dtype=np.float32)

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Prediction:
        return logits.astype(np.float32)

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """Likeness of two networks' outputs on the same samples, 0 to 1."""
        return sample_metrics.agreement(self.kind, found, reference)

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return sample_metrics.likeness(self.kind, found, reference)

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        """What outputs on the samples numbered in ``index`` are judged by; ``reference`` is the teacher's."""
        labels = self.samples.labels
        return sample_metrics.sample_comparisons(
            self.kind,
            found,
            reference,
            None if labels is None else labels[index],
            self.classes,
            self.units.at(index).of,
        )
