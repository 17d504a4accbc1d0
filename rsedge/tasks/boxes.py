"""Boxes around objects: samples are split and varied as in :mod:`rsedge.tasks.samples`, with their boxes; the detector's candidates
become boxes here as they do on board (:mod:`rsedge.runtimes.inference.boxes`), and boxes are what is kept, compared and judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.boxes.candidates import BESIDE, BOX, TURN, width_of
from rsedge.data.boxes.geometry import CORNERS, FOUND, TRUTH, Floats, places, upright_within
from rsedge.data.boxes.views import BoxViews
from rsedge.data.errors import RequestError
from rsedge.data.metrics.boxes import BoxComparison, BoxLikeness, box_agreement, box_likeness
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.samples import Kind
from rsedge.data.samples.views import SampleViewSettings
from rsedge.models.answers import check_candidates
from rsedge.reports.assets import BoxAsset
from rsedge.results.data import Data
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.runtimes.session import LOGITS
from rsedge.tasks.base import Arrays, FitSamples, Index, Labels, Prediction
from rsedge.tasks.pictures import LABEL, first, named
from rsedge.tasks.samples import SampleHeldOut, SampleTask

if TYPE_CHECKING:
    from rsedge.export.onnx.graph import Output

KEPT_SCORE = 0.01
"""Certainty from which boxes are kept to be judged: average precision asks for the uncertain ones too."""
TAUGHT_SCORE = 0.05
"""Certainty from which a teacher's boxes teach, weighted by it."""
TAUGHT = 128
"""Boxes per view that a student can be taught, the most certain ones."""


class BoxTask(SampleTask):
    """Detection; of turned boxes where the recipe says ``boxes.oriented``."""

    student_has = ("grid",)

    @property
    def output(self) -> Output:  # type: ignore[override]
        return "oriented" if self.settings.oriented else "boxes"

    @property
    def settings(self) -> BoxSettings:
        return self.recipe.boxes

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return "boxes"

    @cached_property
    def truth(self) -> tuple[Floats, ...] | None:
        """Boxes (M, 5) of each sample with the teacher's class numbers, (M, 6) with their angles where boxes are turned; None
        without any.

        Raises:
            RequestError: a class of the data that the teacher does not have, or boxes without angles where turned ones are asked.
        """
        boxes = self.samples.boxes
        if boxes is None:
            return None
        names = self.samples.classes
        unknown = [n for n in names if n not in self.classes]
        if unknown:
            raise RequestError(
                f"data.samples: '{self.samples.name}' has class '{unknown[0]}', the teacher finds {', '.join(self.classes)}; "
                "name the teacher's outputs so under teacher.classes, or the data's under options.classes"
            )
        if self.settings.oriented and not any(b.shape[1] > TRUTH for b in boxes):
            raise RequestError(
                f"boxes.oriented: the boxes of '{self.samples.name}' lie along rows and columns; give labels that are turned "
                "(polygons, eight numbers; docs/detection.md), or leave oriented out"
            )
        numbers = np.array([self.classes.index(n) for n in names], np.float32)
        return tuple(self._as_asked(b, numbers) for b in boxes)

    def _as_asked(self, boxes: Floats, numbers: Floats) -> Floats:
        """Objects of one sample with other class numbers; where the recipe asks for no turned boxes, the boxes around them."""
        placed = places(boxes, TRUTH)
        if not self.settings.oriented:
            placed = upright_within(placed, (0, 0), (self.spec.tile, self.spec.tile))
        parts = (placed[:, :CORNERS], numbers[boxes[:, 4].astype(int)], placed[:, CORNERS:])
        return np.column_stack(parts).astype(np.float32)

    @property
    def labelled(self) -> bool:
        return self.truth is not None

    def _known(self, index: Index) -> tuple[npt.NDArray[np.bool_], list[str]]:
        assert self.truth is not None
        there = {int(number) for i in index for number in self.truth[i][:, 4]}
        return np.ones(len(index), bool), [n for i, n in enumerate(self.classes) if i not in there]

    def data_stage(self, context: StageContext) -> Data:
        truth = self.truth
        found = super().data_stage(context)
        if truth is None:
            return found
        counts = {role: int(sum(len(truth[i]) for i in index)) for role, index in self.roles.items()}
        return found.model_copy(update={"objects": counts})

    def views_of(self, index: Index, seed: int) -> BoxViews:
        settings = SampleViewSettings(**self.recipe.samples.augment.model_dump())
        truth = () if self.truth is None else tuple(self.truth[i] for i in index)
        return BoxViews(self.dn[index], self.spec, settings, seed, truth)

    def training_targets(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return training_boxes(outputs, self.settings.nms_iou, self.settings.oriented)

    def labels_of(self, index: Index, seed: int) -> Labels:
        if self.truth is None:
            raise RequestError(
                f"steps.distill.labels: '{self.samples.name}' has no boxes to learn from; leave labels out"
            )
        return self.tables_of(self.views_of(index, seed))

    def tables_of(self, views: BoxViews) -> Labels:
        """The boxes of views by number, in the form of :meth:`training_targets`."""

        def labels(number: int) -> Floats:
            table = np.zeros((TAUGHT, BESIDE + len(self.classes) + 1), np.float32)
            boxes = views.boxes(number)[:TAUGHT]
            table[: len(boxes), :BOX], table[: len(boxes), BOX] = boxes[:, :CORNERS], 1
            table[np.arange(len(boxes)), BESIDE + boxes[:, 4].astype(int)] = 1
            if self.settings.oriented:
                table[: len(boxes), -1] = boxes[:, TRUTH]
            return table

        return labels

    def fit_samples(self, selection: SampleHeldOut) -> FitSamples:
        truth, train = self.truth, self.roles["train"]
        if truth is None:
            return super().fit_samples(selection)
        sizes = np.concatenate([truth[i][:, 2:4] - truth[i][:, :2] for i in train])
        if not len(sizes):
            raise RequestError("teacher.fit: the training samples hold no box; give more images or another seed")
        if not any(len(truth[i]) for i in selection.index):
            raise RequestError(
                "teacher.fit: the selection samples hold no box to choose the best step by; give more images, a larger "
                "data.selection.fraction or another seed"
            )
        views = self.views_of(train, self.recipe.seed)
        return FitSamples(
            views, self.tables_of(views), sizes, len(selection.index),
            score=lambda kept: selection.metrics(kept, kept)["ap50"],
        )  # fmt: skip

    def keep(self, outputs: Arrays) -> Prediction:
        """(most, 6): corners, certainty and class number, the most certain first; rows of certainty 0 fill up. (most, 7) with the
        angle of turned boxes."""
        settings = self.settings.model_copy(update={"score": KEPT_SCORE})
        found = boxes_of(outputs[LOGITS][0], **settings.model_dump())
        table = np.zeros((settings.max_detections, FOUND + settings.oriented), np.float32)
        table[: len(found)] = found.table
        return table

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Prediction:
        return np.stack([self.keep({LOGITS: one[None]}) for one in logits])

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """F1 at an overlap of 0.5 between the boxes that both would report."""
        return box_agreement(_lists(found), _lists(reference), self.settings.score)

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return box_likeness(_lists(found), _lists(reference), len(self.classes), self.settings.score)

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        boxes, groups, score = _lists(found), self.units.at(index).of, self.settings.score
        alike = BoxLikeness("teacher boxes", boxes, _lists(reference), groups, score)
        if self.truth is None:
            return (alike,)
        truth = [self.truth[i] for i in index]
        return alike, BoxComparison("boxes", boxes, truth, self.classes, groups, score, self.recipe.seed)

    def reported(self, kept: Prediction) -> list[Floats]:
        """Per input the boxes that are certain enough to be reported, as :attr:`truth` has them."""
        return [np.delete(t[t[:, 4] >= self.settings.score], 4, axis=1) for t in _lists(kept)]

    @property
    def bundle_fields(self) -> dict[str, Any]:
        return {"boxes": self.settings}

    def check_answers(self, outputs: npt.NDArray[np.float32], name: str) -> None:
        check_candidates(outputs, name, len(self.classes), self.settings.oriented)

    def shown(self, test: SampleHeldOut, teacher: Prediction) -> Arrays:
        boxes = self.reported(teacher) if self.truth is None else [self.truth[i] for i in test.index]
        index = first(-np.array([len(b) for b in boxes]))
        return named(index, test, teacher, [] if self.truth is None else [boxes[i] for i in index])

    def pictures(self, kept: Arrays, student: Prediction) -> dict[str, list[Any]]:
        """Objects of labels, teacher and student."""
        teacher, found = self.reported(kept["teacher"]), self.reported(student)
        assets = []
        for i, (number, dn) in enumerate(zip(kept["index"], kept["dn"], strict=True)):
            labels = {"labels": kept[f"{LABEL}{i}"]} if f"{LABEL}{i}" in kept else {}
            boxes = {**labels, "teacher": teacher[i], "student": found[i]}
            assets.append(BoxAsset(f"test sample {number + 1}", self.picture(dn), boxes))
        return {"boxes": assets}

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 3 and (shape[0], shape[2]) == (1, self.expected_shape()[2])

    def expected_shape(self) -> tuple[int, ...]:
        return (1, -1, width_of(len(self.classes), self.settings.oriented))


def _lists(kept: Prediction) -> list[Floats]:
    return [table[table[:, 4] > 0] for table in kept]


def training_boxes(outputs: Floats, overlap: float, oriented: bool = False) -> Floats:
    """Candidates (N, A, 5 + K), or (N, A, 5 + K + 2) of turned boxes, to what a student learns: (N, :data:`TAUGHT`, 5 + K + 1)
    corners, certainty, class scores and angle, 0 where boxes are not turned."""
    ahead = outputs.shape[2] - TURN * oriented
    table = np.zeros((len(outputs), TAUGHT, ahead + 1), np.float32)
    for row, candidates in zip(table, outputs, strict=True):
        found = boxes_of(candidates, TAUGHT_SCORE, overlap, TAUGHT, oriented)
        row[: len(found), :BOX], row[: len(found), BOX:ahead] = found.corners, candidates[found.picks, BOX:ahead]
        if oriented:
            row[: len(found), -1] = found.places[:, CORNERS]
    return table
