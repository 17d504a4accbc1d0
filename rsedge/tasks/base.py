"""What differs between tasks: where inputs come from, what is kept of an output, how outputs are compared and judged.

Stages work on a :class:`Task` and know no task by name. :mod:`rsedge.tasks.scenes` cuts scenes into tiles for class maps,
:mod:`rsedge.tasks.samples` takes samples and vectors, :mod:`rsedge.tasks.maps` samples and class maps (change between two dates
among them), :mod:`rsedge.tasks.boxes` samples and boxes, :mod:`rsedge.tasks.captions` pictures and what a language model says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.figures import record_of, statistics_of
from rsedge.data.metrics.samples import Kind
from rsedge.data.metrics.statistics import Statistics
from rsedge.data.scenes.points import Points
from rsedge.models.answers import check_logits
from rsedge.models.zoo import Task as TeacherTask
from rsedge.recipe.schema import Recipe
from rsedge.results.data import Data
from rsedge.runtimes.session import INPUT, Session
from rsedge.tasks.colours import Rgb, input_rgb

if TYPE_CHECKING:
    from rsedge.export.onnx.graph import Output

Arrays = Mapping[str, npt.NDArray[Any]]
Inputs = npt.NDArray[np.generic]
Prediction = npt.NDArray[Any]
Index = npt.NDArray[np.intp]
Views = Callable[[int], Inputs]
Change = Callable[[Inputs, np.random.Generator], Inputs]
Labels = Callable[[int], npt.NDArray[np.float32]]
HeldOutRole = Literal["selection", "test"]


@dataclass(frozen=True)
class JudgedGrid:
    """Where the pixels lie by which a scene judges, as its file says it."""

    height: int
    width: int
    crs: Any
    transform: Any
    points: Points
    path: Path


@dataclass(frozen=True)
class Judge(ABC):
    """How networks' outputs on some inputs are compared and judged.

    Attributes:
        labelled: whether the inputs have labels.
        note: what is to be said where there are too few of them to judge by.
        seed: of the draws that intervals rest on.
    """

    labelled: bool
    note: str | None
    seed: int

    @abstractmethod
    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """Likeness of two networks' outputs, 0 to 1."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What intervals draw, in words."""

    @abstractmethod
    def comparisons(self, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        """What outputs are judged by: labels where there are any, and the teacher's outputs, ``reference``."""

    def metrics(self, found: Prediction, reference: Prediction) -> dict[str, Any]:
        """How outputs do; ``reference`` is the teacher's. Empty where there is nothing to judge by."""
        return record_of(*self.comparisons(found, reference))

    def statistics(self, found: Prediction, reference: Prediction) -> Statistics:
        """What :meth:`metrics` and :meth:`agreement` give, unit by unit, for their intervals."""
        return Statistics(self.unit, statistics_of(*self.comparisons(found, reference)))

    def evidence(self, found: Prediction, reference: Prediction) -> dict[str, Evidence]:
        """How sure the figures of outputs are, and their differences from the teacher's, ``reference``."""
        own, teacher = (self.statistics(kept, reference) for kept in (found, reference))
        return evidence(own, teacher, self.seed)


@dataclass(frozen=True)
class HeldOut(Judge):
    """What one role holds out, and its judge.

    Attributes:
        role: ``selection``, which choices look at, or ``test``, which verdicts rest on.
        inputs: (N, *spec.shape) digital numbers.
    """

    role: HeldOutRole
    inputs: Inputs

    @abstractmethod
    def few(self, count: int) -> HeldOut:
        """As many of the inputs, or all where there are no more: enough to try that judging works, not to judge."""


H = TypeVar("H", bound=HeldOut)


@dataclass(frozen=True)
class Folds:
    """Inputs in folds of whole groups: each fold is judged by what learned from the others.

    Attributes:
        count: how many folds there are.
        judge: of all that the folds hold, in the order of :meth:`joined`.
        numbers: of each fold, which of the task's inputs it holds.
        inputs: by fold, the digital numbers (n, *spec.shape) that are judged.
        known: by fold, the numbers of the task's inputs that may teach for it.
        views: by fold and seed, views of these.
        labels: by fold and seed, what is known of each view, as :meth:`Task.view_labels`.
        calibration: by fold, those of them that set INT8 ranges.
    """

    count: int
    judge: Judge
    numbers: Sequence[Index]
    inputs: Callable[[int], Inputs]
    known: Callable[[int], Index]
    views: Callable[[int, int], Views]
    labels: Callable[[int, int], Labels]
    calibration: Callable[[int], Inputs]

    def joined(self, answers: Sequence[Prediction]) -> Prediction:
        """Outputs on the inputs of every fold as those of all together."""
        order = np.argsort(np.concatenate(self.numbers), kind="stable")
        return np.concatenate(answers)[order]


@dataclass(frozen=True)
class FitSamples:
    """What a teacher without weights is fitted on.

    Attributes:
        views: by number, of the training inputs.
        labels: by number, what is known of each view, in the form of :meth:`Task.training_targets`.
        sizes: (M, 2) width and height (pixels) of the objects in the training inputs.
        judged: number of inputs by which the best step is chosen.
        score: of a network's outputs on these; more is better.
    """

    views: Views
    labels: Labels
    sizes: npt.NDArray[np.float32]
    judged: int
    score: Callable[[Prediction], float]


@dataclass(frozen=True)
class ProbeSamples:
    """What a linear head is fitted on.

    Attributes:
        inputs: (N, *spec.shape) digital numbers, all there are.
        labels: (N,) or (N, K).
        groups: (N,) what must not be split.
        train: numbers of the training samples.
    """

    inputs: Inputs
    labels: npt.NDArray[Any]
    groups: npt.NDArray[np.str_]
    train: Index


class Task(ABC, Generic[H]):
    """One recipe's task; ``H`` is what it holds out.

    Views are what students learn from and choices look at, :meth:`predict` runs a network, what is held out judges
    (:class:`Judge`), :meth:`shown` and :meth:`pictures` are for the report. What only some tasks have (a teacher to be fitted,
    a probe, folds, references) others refuse.

    Attributes:
        output: ``map`` for logits per pixel, ``vector`` for one vector per input, ``boxes`` for a detector's candidates,
            ``oriented`` for those of turned boxes, ``tokens`` for several vectors, ``image`` for bands on a finer grid,
            ``features`` for a vector at every place of a coarser one.
        student_has: attributes that a student must have, beside the right outputs.
        does: what the teacher does, as its row says.
        finer: how many times finer than the input's grid that of an image is.
        stride: pixels of the input that one place of a map of features is wide.
    """

    output: Output
    student_has: tuple[str, ...] = ()

    def __init__(
        self,
        recipe: Recipe,
        spec: InputSpec,
        classes: tuple[str, ...],
        does: TeacherTask,
        finer: int = 1,
        stride: int = 1,
    ) -> None:
        self.recipe, self.spec, self.classes, self.does = recipe, spec, classes, does
        self.finer, self.stride = finer, stride

    @property
    @abstractmethod
    def inputs_key(self) -> str:
        """Hash of the content of everything that is read."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the outputs are, which says how they are compared (``compress/distill/losses.py``)."""

    @abstractmethod
    def data_stage(self, context: StageContext) -> Data:
        """Writes ``calibration.npz`` (array ``dn``) and what is held out; returns the manifest's figures."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Takes note of the folder in which :meth:`data_stage` wrote; a role is read when it is asked for."""

    @abstractmethod
    def held_out(self, role: HeldOutRole) -> H:
        """What a role holds out. Stages ask the run context, which knows who may read what."""

    @abstractmethod
    def training_views(self) -> Views:
        """The views the student learns from, by number."""

    def unchanged_views(self) -> Callable[[int], Inputs | None]:
        """Of :meth:`training_views` those that had further changes, without them; None for the others."""
        return lambda number: None

    def change(self) -> Change | None:
        """What changes :meth:`training_views` when they are read, anew each time; None where nothing does."""
        return None

    def whole_scene(self) -> Inputs | None:
        """Digital numbers (C, H, W) of the largest scene of the data, to look at what tiling does; None where inputs are no cuts of
        scenes."""
        return None

    @abstractmethod
    def selection_views(self, count: int) -> Inputs:
        """Views of what is held out for selection, (count, *spec.shape), which stand for inputs unlike those given."""

    @abstractmethod
    def keep(self, outputs: Arrays) -> Prediction:
        """What is kept of one input's outputs (batch axis of 1)."""

    @abstractmethod
    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Prediction:
        """As :meth:`keep`, for logits of N inputs of which all is valid."""

    @abstractmethod
    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        """Likeness of two networks' outputs on :meth:`selection_views`, at most 1."""

    def predict(self, session: Session, inputs: Inputs) -> Prediction:
        """What is kept of a session's outputs on inputs, one after the other."""
        return np.stack([self.keep(session({INPUT: one[None]})) for one in inputs])

    def training_targets(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What a student learns of a teacher's outputs on N inputs."""
        return outputs

    def view_labels(self, seed: int) -> Labels:
        """What is known of :meth:`training_views` drawn with ``seed``: boxes in the form of :meth:`training_targets`, else as
        :func:`rsedge.compress.distill.label_losses.label_loss` takes them.

        Raises:
            RequestError: nothing is.
        """
        raise RequestError("steps.distill.labels: there are no labels to learn from; leave labels out")

    def fit_samples(self, selection: H) -> FitSamples:
        """What a teacher without weights is fitted on; ``selection`` chooses the best step.

        Raises:
            RequestError: the data do not have it.
        """
        raise RequestError("teacher.fit: data.samples has no boxes to learn from")

    @property
    def probe_samples(self) -> ProbeSamples:
        """What a linear head is fitted on.

        Raises:
            RequestError: the data do not have it, or not as ``teacher.classes`` says.
        """
        raise RequestError("teacher.probe: data.samples has no labels of whole samples to fit the head to")

    @property
    def folds(self) -> Folds:
        """The inputs in folds.

        Raises:
            RequestError: there are none.
        """
        raise RequestError("data.folds: only samples have folds; leave it out")

    def references(self, held_out: H) -> list[tuple[str, ...]] | None:
        """Texts that are known of each input; None without any."""
        return None

    @property
    def bundle_fields(self) -> dict[str, Any]:
        """What a bundle's manifest says of its outputs beside their names (:class:`rsedge.export.bundle.About`)."""
        return {}

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs as a report names them."""
        return self.classes

    @property
    def takes_many(self) -> bool:
        """Whether inputs and outputs are small vectors, of which torch takes many at once and judging as many."""
        return self.output == "vector"

    def check_answers(self, outputs: npt.NDArray[np.float32], name: str) -> None:
        """Holds a teacher's outputs on a few training views against what is learned of them; ``name`` is the teacher's.

        Raises:
            RequestError: they are not what they are taken for; says what, and what mends it.
        """
        if self.kind in ("classes", "labels"):
            check_logits(outputs, name)

    def picture(self, dn: Inputs) -> Rgb:
        """One image's digital numbers (C, H, W) as a picture (H, W, 3)."""
        return input_rgb(self.spec, dn)

    def shown(self, test: H, teacher: Prediction) -> Arrays:
        """What a report shows of the test set: arrays by name; none of tasks without pictures.

        ``index`` (n,) numbers the inputs in the test set, ``dn`` are they, ``teacher`` what is kept of the teacher's outputs;
        ``label-0`` and so on are what is known of each, and ``share`` (n,) how much of it is judged, where that is not all.
        """
        return {}

    def pictures(self, kept: Arrays, student: Prediction) -> dict[str, list[Any]]:
        """What :meth:`shown` kept, with a student's outputs: parts of :class:`rsedge.reports.assets.ReportAssets` by name."""
        return {}

    def judged_grid(self) -> JudgedGrid | None:
        """Where :meth:`cases` lie; None where the test set is none of a file's pixels as they are, or the file says no place."""
        return None

    def cases(self, test: H, teacher: Prediction, student: Prediction) -> npt.NDArray[np.uint8] | None:
        """Who of the two is right where (:data:`rsedge.reports.images.CASES`), (H, W) on the grid of the file that judges, 255
        where nothing is judged; None where there is no such file."""
        return None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a network's outputs for one input have the right shape."""
        return shape == self.expected_shape()

    def expected_shape(self) -> tuple[int, ...]:
        """Shape of one input's logits, batch axis included; -1 where any number will do."""
        edge = (self.spec.tile, self.spec.tile) if self.output == "map" else ()
        return (1, len(self.classes), *edge)
