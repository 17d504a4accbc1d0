"""What the stages of one run share: recipe, task, teacher, data of every role, the student as a stage left it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from rsedge.cache.code_closure import code_hash
from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results, tool_versions
from rsedge.compress.distill.group import Group
from rsedge.compress.distill.hard_views import Gaps, trust_of
from rsedge.compress.distill.statistics import Statistics, statistics_of
from rsedge.compress.distill.teacher_cache import VARIABLE as OUTPUTS_VARIABLE
from rsedge.compress.distill.teacher_cache import TeacherCache, make_room
from rsedge.compress.distill.teacher_outputs import (
    AskTeacher,
    CachedOutputs,
    ChangedOutputs,
    LiveOutputs,
    SourceChoice,
    TeacherFunction,
    TeacherOutputs,
    WithLabels,
    cached_outputs,
    choose_source,
)
from rsedge.compress.standing import Standing, TakeStanding
from rsedge.data.bands import InputSpec
from rsedge.data.calibration import load_calibration
from rsedge.data.contract_view import ContractView
from rsedge.data.errors import MissingCapability, RsedgeError
from rsedge.data.files import make_folder, sha256_of
from rsedge.data.folders import cache_folder
from rsedge.data.paged import strips, zeros
from rsedge.models.outside.loading import weight_count
from rsedge.models.parts import one_graph
from rsedge.models.structure import load_model
from rsedge.models.students import build_student, contract_arguments, student_entry
from rsedge.models.students.narrow import narrow_arguments, start_from
from rsedge.models.teachers import Teacher
from rsedge.progress import Reporter
from rsedge.recipe.contracts import contracts
from rsedge.recipe.places import placeless
from rsedge.recipe.schema import TEACHER_ITSELF, OtherTeacherSection, Recipe
from rsedge.recipe.steps import DistillSection
from rsedge.results.gates import check_on_selection
from rsedge.results.records import Distill
from rsedge.runtimes.session import cpu_count
from rsedge.stages.outputs import predictions, weights_of
from rsedge.stages.teacher_batch import batch_for, bf16_serves, in_batches, meter_of
from rsedge.stages.teacher_model import LARGE, openvino_teacher, recipe_teacher, teacher_key, torch_teacher
from rsedge.stages.teachers import FIRST_OTHER, OUTPUT, Other, check_contract, order_of, own_taps, together
from rsedge.tasks.base import HeldOut, HeldOutRole, Inputs, Prediction, Task, Views

Images = npt.NDArray[np.float32]
Validate = Callable[[nn.Module], dict[str, float]]


SELECTION_VIEWS = 24


SELECTION_SAMPLES = 256


TRIAL_INPUTS = 4
"""Inputs of a held-out role, and calibration tiles, that a trial looks at."""


TEST_READERS = ("teacher", "verify", "captions")
"""The stages that judge. Whatever chooses reads selection, so that no verdict rests on what was chosen by it."""


@dataclass
class RunContext:
    """What the training stages share; the heavy parts are made when first asked for.

    Attributes:
        spec: the contract of the student, which travels with what is delivered; the task's is that of the data.
        view: what the student sees of the data; None where it sees them as they are.
        folders: stage name -> folder of the stages that are done.
        run: where the run lies.
        teacher_key: hash of the teacher's weights.
        chosen: the student that ``auto`` took, once it did.
        running: the stage whose body runs now.
        own_student: the student's network, where the recipe names one in memory.
        trial: a run in miniature (:mod:`rsedge.pipeline.dry_run`): few inputs of each role, short measurements.
        results: what the stages that are done found.
        group: the processes that distill together.
    """

    recipe: Recipe
    spec: InputSpec
    classes: tuple[str, ...]
    task: Task[Any]
    folders: dict[str, Path]
    run: RunFolder
    teacher_key: str
    reporter: Reporter
    chosen: str | None = None
    running: str | None = None
    trial: bool = False
    own_student: nn.Module | None = None
    view: ContractView | None = None
    results: Results = field(default_factory=Results)
    group: Group = field(default_factory=Group)

    @property
    def threads(self) -> int:
        return self.recipe.threads or cpu_count()

    @cached_property
    def teacher(self) -> Teacher:
        return recipe_teacher(self.recipe.teacher)

    @property
    def selection(self) -> HeldOut:
        """What choices look at."""
        return self._seen("selection")

    @property
    def test(self) -> HeldOut:
        """What verdicts rest on.

        Raises:
            RuntimeError: another stage than :data:`TEST_READERS` asks for it, which is a mistake in our code.
        """
        if self.running not in TEST_READERS:
            raise RuntimeError(
                f"stage {self.running!r} asks for the test set; only {', '.join(TEST_READERS)} may, what chooses reads selection"
            )
        return self._seen("test")

    @property
    def shipped(self) -> str:
        """The stage that leaves the student as it is shipped, before any rounding."""
        return self.recipe.trained[-1]

    def seen_as(self, spec: InputSpec) -> RunContext:
        """The same run for a network that takes another contract: the teacher's, or that of the data."""
        view = ContractView.by_name(self.task.spec, spec)
        if spec == self.spec and (self.view is None or view.sees_as(self.view)):
            return self
        own = dataclasses.replace(self, spec=spec, view=view)
        own.teacher = self.teacher
        return own

    def look_at(self, bands: Sequence[str]) -> None:
        """From now on the student looks at these bands of the teacher's."""
        section = self.recipe.student.model_copy(update={"bands": tuple(bands)})
        self.view = contracts(self.teacher.spec.input_spec, section).student
        self.spec = self.view.target
        for known in (
            "_seen_roles",
            "calibration_draws",
            "_selection_read",
            "validate",
            "standing",
            "source",
            "_choice",
        ):
            self.__dict__.pop(known, None)

    def seen(self, dn: Inputs) -> Inputs:
        """What the network sees of the data: digital numbers (..., *task.spec.shape) -> (..., *spec.shape)."""
        return dn if self.view is None else self.view(dn)

    def read(self, dn: Inputs) -> Images:
        """:meth:`seen`, normalised."""
        return self.spec.normalise(self.seen(dn))

    def _seen(self, role: HeldOutRole) -> HeldOut:
        if role not in self._seen_roles:
            whole = self.task.held_out(role)
            found = whole.few(TRIAL_INPUTS) if self.trial else whole
            self._seen_roles[role] = dataclasses.replace(found, inputs=self.seen(found.inputs)) if self.view else found
        return self._seen_roles[role]

    @cached_property
    def _seen_roles(self) -> dict[HeldOutRole, HeldOut]:
        return {}

    def teacher_on(self, held_out: HeldOut) -> Prediction:
        """What is kept of the teacher's outputs on a role's inputs; the teacher stage wrote it."""
        if held_out.role not in self._teacher_kept:
            with np.load(predictions("teacher", held_out.role).of(self.folders), allow_pickle=False) as z:
                self._teacher_kept[held_out.role] = z["kept"]
        return self._teacher_kept[held_out.role]

    @cached_property
    def _teacher_kept(self) -> dict[str, Prediction]:
        return {}

    @property
    def calibration(self) -> Inputs:
        """What sets INT8 ranges: the first draw."""
        return self.calibration_draws[0]

    @cached_property
    def calibration_draws(self) -> list[Inputs]:
        """All draws of ``calibration.draws``; what is chosen with each of them shows how sure the choice is."""
        draws = [self.seen(draw) for draw in load_calibration(self.folders["data"])]
        return [draws[0][:TRIAL_INPUTS]] if self.trial else draws

    @cached_property
    def views(self) -> Views:
        return self.task.training_views()

    @cached_property
    def teacher_function(self) -> TeacherFunction:
        return self._teacher_in(self.teacher_bf16)

    @property
    def teacher_is_large(self) -> bool:
        """Whether its weights are what a run's memory goes by."""
        return weight_count(self.teacher.net) >= LARGE

    def let_teacher_go(self) -> None:
        """Gives back what a large teacher's executable holds; it is made anew where it is asked again."""
        if self.teacher_is_large:
            self.__dict__.pop("teacher_function", None)

    def _teacher_in(self, bf16: bool) -> TeacherFunction:
        if self._in_torch:
            return torch_teacher(self.teacher, own_taps(self.taps, 1), self.recipe.device, bf16)
        return openvino_teacher(self.teacher, self.teacher.spec.input_spec, self.threads, bf16)

    @property
    def _in_torch(self) -> bool:
        """Whether torch runs the teacher: vectors are small, and it takes many of them at once, the OpenVINO graph one input."""
        return bool(self.recipe.distill.taps) or self.recipe.device == "cuda" or self.task.takes_many

    @cached_property
    def teacher_bf16(self) -> bool:
        """Whether the teacher answers in bfloat16: as the recipe says, else on a GPU where that is measured to serve."""
        wish = self.recipe.distill.teacher_autocast
        if wish != "auto" or self.recipe.device != "cuda" or not one_graph(self.teacher):
            return wish == "bf16"
        x = self.seen_as(self.teacher.spec.input_spec).read(np.stack([self.views(i) for i in range(2)]))
        return bf16_serves(self._teacher_in(False), self._teacher_in(True), x)

    @cached_property
    def teacher_batch(self) -> int:
        """Views that the teacher is asked about at once, by measured memory; the OpenVINO graph takes one after the other."""
        return batch_for(self.training_targets, self.views(0), meter_of(self.recipe.device)) if self._in_torch else 1

    @property
    def ask_in_batches(self) -> AskTeacher:
        """:meth:`training_targets` of any number of views."""
        return in_batches(self.training_targets, self.teacher_batch)

    def ask_teacher(self, dn: Inputs) -> dict[str, Images]:
        """The teacher's outputs on what it sees of the data (N, *task.spec.shape)."""
        return self.teacher_function(self.seen_as(self.teacher.spec.input_spec).read(dn))

    def training_targets(self, dn: Inputs) -> dict[str, Images]:
        """What the student learns of the teacher on the data (N, *task.spec.shape)."""
        outputs = together(self.task.kind, self.ask_teacher(dn), self.others, dn)
        return {**outputs, "logits": self.task.training_targets(outputs["logits"])}

    @property
    def taps(self) -> list[str]:
        """Names of the tensors that are tapped of the teachers."""
        return [t.teacher for t in self.recipe.distill.taps]

    @cached_property
    def others(self) -> list[Other]:
        """The teachers beside the first.

        Raises:
            RequestError: one has no output that means the same, or cannot be shown the same inputs.
        """
        return [self._other(i, section) for i, section in enumerate(self.recipe.teachers)]

    def _other(self, index: int, section: OtherTeacherSection) -> Other:
        found, number, where = recipe_teacher(section), FIRST_OTHER + index, f"teachers[{index}]"
        check_contract(found, self.teacher, where)
        order = order_of(self.task.kind, self.classes, found, number, self.taps)
        view, taps = ContractView.by_name(self.task.spec, found.spec.input_spec, where), own_taps(self.taps, number)
        if taps or self._in_torch:
            run = torch_teacher(found, taps, self.recipe.device, self.teacher_bf16)
        else:
            run = openvino_teacher(found, found.spec.input_spec, self.threads, self.teacher_bf16)
        return Other(number, found, section.weight, order, view, run, f"{number}:{OUTPUT}" in self.taps)

    @cached_property
    def source(self) -> TeacherOutputs:
        """What the student learns from on the training views, labels too where the recipe asks for them."""
        kept, change = self._teacher_source(), self.task.change()
        made = kept if change is None else ChangedOutputs(kept, change, self.recipe.seed)
        if not self.recipe.distill.labels:
            return made
        return WithLabels(made, self.task.view_labels(self.recipe.seed))

    def _teacher_source(self) -> LiveOutputs | CachedOutputs:
        """The teacher's outputs on the training views, kept for other runs or computed when asked for."""
        s, folder, choice = self.recipe.distill, self.outputs_folder, self._choice
        self.reporter.note(f"  teacher outputs {choice.reason}")
        if not choice.cached:
            return LiveOutputs(self.views, self.ask_in_batches, self.read, s.views, choice.record)

        def report(done: int, total: int) -> None:
            self.reporter.step("teacher on views", done, total)

        make_room(folder.parent, folder, choice.missing_bytes)
        cache = TeacherCache(folder, choice.record)
        batch = self.teacher_batch if choice.missing else 1
        return cached_outputs(cache, self.views, self.training_targets, self.read, s.views, batch, report)

    @cached_property
    def _choice(self) -> SourceChoice:
        return self.source_choice(self.recipe.distill, self.outputs_folder)

    def agree(self) -> None:
        """What one process measures, its whole group takes over: called by all of them, before any asks for :attr:`source`."""
        for measured in ("teacher_bf16", "_choice") if self.group.count > 1 else ():
            self.__dict__[measured] = self.group.of_leader(functools.partial(getattr, self, measured))

    def source_choice(self, s: DistillSection, folder: Path) -> SourceChoice:
        """Whether the teacher's outputs are kept in ``folder``, measured on a few views."""
        return choose_source(
            self.views, self.ask_in_batches, s.views, s.steps * s.batch, folder, s.cache,
            classes=self.only_distribution, exact=self.task.kind == "boxes",
        )  # fmt: skip

    @property
    def only_distribution(self) -> bool:
        """Whether nothing but the distribution over classes is learned of the teacher's logits, none softer than it is."""
        s = self.recipe.distill
        plain = all(loss.name == "kl" and float(loss.options.get("temperature", 1)) <= 1 for loss in s.loss)
        return self.task.kind == "classes" and s.temperature <= 1 and plain

    @property
    def outputs_folder(self) -> Path:
        """Where the teacher's outputs on the training views lie, by what they depend on: for all runs of this user."""
        return outputs_store(self.run.cache, self.trial) / self.outputs_key[:32]

    @cached_property
    def trust(self) -> Gaps:
        """How far the teacher can be relied on in each training view."""

        def report(done: int, total: int) -> None:
            self.reporter.step("teacher on views without their change", done, total)

        return trust_of(
            self.source, self.task.unchanged_views(), self.training_targets, self.task.kind,
            self.run.cache / "trust.npz", self.outputs_key, report,
        )  # fmt: skip

    @cached_property
    def teacher_statistics(self) -> Statistics:
        """Of the teacher's outputs on the training views: as distillation took them, else taken now."""
        done = self.results.maybe(Distill)
        return (done.record.statistics if done else {}) or statistics_of(self.source)

    @property
    def outputs_key(self) -> str:
        """What the teacher's outputs on the training views depend on: weights, contract, settings, data, code and tools."""
        recipe = self.recipe
        settings = {
            "teacher": placeless(recipe.teacher),
            "contract": self.task.spec.model_dump(mode="json"),
            "classes": self.classes,
            "seed": recipe.seed,
            "data": placeless(recipe.data),
            "boxes": recipe.boxes.model_dump(mode="json"),
            "taps": [t.teacher for t in recipe.distill.taps],
            "others": [(placeless(s), key) for s, key in zip(recipe.teachers, self.other_keys, strict=True)],
            "rounding": [self.only_distribution, self.task.kind],
            "device": recipe.device,
            "bf16": self.teacher_bf16,
            "threads": self.threads,
        }
        code = code_hash((__name__, type(self.task).__module__))
        return sha256_of([self.teacher_key, self.task.inputs_key, settings, code, tool_versions()])

    @cached_property
    def other_keys(self) -> list[str]:
        """Hashes of the other teachers' weights, as ``teacher_key``."""
        return [teacher_key(other.teacher) for other in self.others]

    @cached_property
    def selection_views(self) -> Inputs:
        """Views of what is held out for selection, which stand for other sensors, as the data have them."""
        wanted = SELECTION_SAMPLES if self.task.takes_many else SELECTION_VIEWS
        return self.task.selection_views(TRIAL_INPUTS if self.trial else wanted)

    @cached_property
    def teacher_on_views(self) -> Prediction:
        """What is kept of the teacher's outputs on :attr:`selection_views`."""
        views = self.selection_views
        return self.task.keep_logits(np.concatenate([self.ask_teacher(v[None])["logits"] for v in views]))

    def likeness(self, on_inputs: Prediction, on_views: Prediction) -> dict[str, float]:
        """Scores outputs without labels: likeness to the teacher on :attr:`selection` and on :attr:`selection_views`."""
        agreed = self.selection.agreement(on_inputs, self.teacher_on(self.selection))
        alike = self.task.view_likeness(on_views, self.teacher_on_views)
        return {"score": (agreed + alike) / 2, "agreement": agreed, "views_likeness": alike}

    @cached_property
    def validate(self) -> Validate:
        """:meth:`likeness` of a student in torch."""
        inputs, views = self._selection_read, self.read(self.selection_views)
        keep = self.task.keep_logits
        return lambda module: self.likeness(keep(logits_of(module, inputs)), keep(logits_of(module, views)))

    @cached_property
    def _selection_read(self) -> Images:
        """Inputs of :attr:`selection`, normalised; there may be more of them than memory holds."""
        dn = self.selection.inputs
        out = zeros(dn.shape, np.float32)
        for rows in strips(len(dn), out[:1].nbytes):
            out[rows] = self.spec.normalise(dn[rows])
        return out

    @cached_property
    def standing(self) -> TakeStanding:
        """How a student in torch stands to the gates on accuracy of all targets, on :attr:`selection`."""
        inputs, reference = self._selection_read, self.teacher_on(self.selection)

        def take(module: nn.Module) -> Standing:
            found = self.task.keep_logits(logits_of(module, inputs))
            evidence = self.selection.evidence(found, reference)
            checks = [check_on_selection(self.recipe, name, evidence, margin=0.0) for name in self.recipe.targets]
            return Standing(
                shortfall=max(check.shortfall for check in checks),
                missed=tuple(dict.fromkeys(name for check in checks for name in check.missed)),
                reason="; ".join(dict.fromkeys(text for check in checks for text in check.shortfalls)),
            )

        return take

    @property
    def student_name(self) -> str:
        """The recipe's student, or the one that ``auto`` took."""
        return self.chosen or self.recipe.student.name

    def build(self) -> tuple[nn.Module, dict[str, Any]]:
        """A fresh student and the arguments it was built with; the same seed gives the same weights."""
        name, teacher = self.student_name, self.teacher
        options = {} if self.chosen else self.recipe.student.options
        if name == TEACHER_ITSELF:
            kwargs = {"family_name": teacher.spec.family, "arch": dict(teacher.arch)}
            return copy.deepcopy(teacher.net).requires_grad_(True), kwargs
        if self.own_student is not None:
            return copy.deepcopy(self.own_student), options
        torch.manual_seed(self.recipe.seed)
        if student_entry(name).copies:
            kwargs = narrow_arguments(teacher, options)
            copied = build_student(name, kwargs)
            start_from(copied, teacher.net)
            return copied, kwargs
        row, oriented = teacher.spec, self.recipe.boxes.oriented
        asked = contract_arguments(name, self.spec, len(self.classes), row.finer, oriented, row.stride)
        kwargs = {**asked, **options}
        return build_student(name, kwargs), kwargs

    def student(self, stage: str) -> nn.Module:
        """The student as a stage left it."""
        return load_model(weights_of(stage).of(self.folders), self._rebuilt)

    def _rebuilt(self, factory: str, kwargs: dict[str, Any]) -> nn.Module:
        """A network to be given widths and weights: of the catalogue, somebody's own, or of whatever the teacher is."""
        if factory == TEACHER_ITSELF:
            return copy.deepcopy(self.teacher.net).requires_grad_(True)
        if self.own_student is not None:
            return copy.deepcopy(self.own_student)
        return build_student(factory, kwargs)


def outputs_store(own: Path, trial: bool = False) -> Path:
    """Where sets of teachers' outputs lie: in ``RSEDGE_TEACHER_CACHE``, or this user's cache folder.

    A trial takes the run's ``own``, as a run does that can write nothing there.
    """
    if trial:
        return own
    try:
        store = Path(os.environ.get(OUTPUTS_VARIABLE) or cache_folder() / "teacher")
        make_folder(store)
    except (RsedgeError, OSError):
        return own
    return store if os.access(store, os.W_OK) else own


def prepare_torch(device: str, threads: int | None) -> None:
    """Threads and determinism for this process.

    Raises:
        MissingCapability: cuda is asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingCapability("device: cuda was asked for, but torch sees no CUDA GPU; use --set device=cpu")
    torch.set_num_threads(threads or cpu_count())
    # Notes of tools to their own developers; errors still come through.
    for category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\..*")
    # Graphs are made static on purpose, and parity checks them.
    warnings.filterwarnings("ignore", category=TracerWarning)
    for name in ("torch.utils.cpp_extension", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def logits_of(module: nn.Module, x: Images, batch: int = 8) -> Images:
    """A module's outputs on normalised inputs, in evaluation mode."""
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        parts = [module(torch.from_numpy(x[i : i + batch]).to(device)).float().cpu() for i in range(0, len(x), batch)]
    module.train(was_training)
    return torch.cat(parts).numpy()


def report_progress(ctx: RunContext, name: str) -> Callable[[int, int, dict[str, float]], None]:
    """A hook that shows training steps under ``name``."""

    def on_step(step: int, total: int, parts: dict[str, float]) -> None:
        info = " ".join(f"{k} {v:.4f}" for k, v in list(parts.items())[:2])
        ctx.reporter.step(name, step, total, info)
        ctx.reporter.figures(name, parts, step)

    return on_step


def reported(ctx: RunContext, name: str, validate: Validate) -> Validate:
    """The same, with what it finds told as figures of the step of ``name`` that was told last."""

    def judged(module: nn.Module) -> dict[str, float]:
        found = validate(module)
        ctx.reporter.figures(name, {f"selection {key}": value for key, value in found.items()})
        return found

    return judged
