"""The stages that train: distillation and pruning, and what they share."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from rsedge.cache.code_closure import code_hash
from rsedge.cache.stage import StageContext, tool_versions
from rsedge.compress.distill import DistillRecord, DistillSettings, Tap, distill, grid_of
from rsedge.compress.losses import logit_loss
from rsedge.compress.prune import PruneHooks, PruneRecord, PruneSettings, PruneTarget, prune
from rsedge.compress.prune_plan import count_macs, count_params
from rsedge.compress.teacher_outputs import (
    LABELS,
    LiveOutputs,
    TeacherFunction,
    TeacherOutputs,
    WithLabels,
    build_cache,
    choose_source,
)
from rsedge.data.bands import InputSpec
from rsedge.data.calibration import load_calibration
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_of
from rsedge.models.structure import load_model, save_model
from rsedge.models.students import build_student, contract_arguments, student_entry
from rsedge.models.students.narrow import narrow_arguments, start_from
from rsedge.models.teachers import Teacher
from rsedge.progress import Reporter
from rsedge.recipe.schema import TEACHER_ITSELF, Recipe
from rsedge.results.records import Distill, Prune
from rsedge.runtimes.session import cpu_count
from rsedge.stages.teacher import openvino_teacher, recipe_teacher, torch_teacher
from rsedge.tasks.base import HeldOut, Inputs, Kept, Task, Views

Images = npt.NDArray[np.float32]
SELECTION_VIEWS = 24
SELECTION_SAMPLES = 256
TRIAL_INPUTS = 4
"""Inputs of a held-out role, and calibration tiles, that a trial looks at."""
TEST_READERS = ("teacher", "verify", "captions")
"""The stages that judge. Whatever chooses reads selection, so that no verdict rests on what was chosen by it."""


@dataclass
class Workshop:
    """What the training stages share; the heavy parts are made when first asked for.

    Attributes:
        folders: stage name -> folder of the stages that are done.
        cache: folder of the teacher's outputs on the training views.
        teacher_key: hash of the teacher's weights.
        chosen: the student that ``auto`` took, once it did.
        running: the stage whose body runs now.
        trial: a run in miniature (:mod:`rsedge.pipeline.dry_run`): few inputs of each role, short measurements.
    """

    recipe: Recipe
    spec: InputSpec
    classes: tuple[str, ...]
    task: Task
    folders: dict[str, Path]
    cache: Path
    teacher_key: str
    reporter: Reporter
    chosen: str | None = None
    running: str | None = None
    trial: bool = False

    @property
    def threads(self) -> int:
        return self.recipe.threads or cpu_count()

    @cached_property
    def teacher(self) -> Teacher:
        return recipe_teacher(self.recipe.teacher)

    @property
    def selection(self) -> HeldOut:
        """What choices look at."""
        return self._seen(self.task.held_out("selection"))

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
        return self._seen(self.task.held_out("test"))

    def _seen(self, held_out: HeldOut) -> HeldOut:
        return held_out.few(TRIAL_INPUTS) if self.trial else held_out

    def teacher_on(self, held_out: HeldOut) -> Kept:
        """What is kept of the teacher's outputs on a role's inputs; the teacher stage wrote it."""
        if held_out.role not in self._teacher_kept:
            with np.load(self.folders["teacher"] / f"{held_out.role}.npz", allow_pickle=False) as z:
                self._teacher_kept[held_out.role] = z["kept"]
        return self._teacher_kept[held_out.role]

    @cached_property
    def _teacher_kept(self) -> dict[str, Kept]:
        return {}

    @property
    def calibration(self) -> Inputs:
        """What sets INT8 ranges: the first draw."""
        return self.calibration_draws[0]

    @cached_property
    def calibration_draws(self) -> list[Inputs]:
        """All draws of ``calibration.draws``; what is chosen with each of them shows how sure the choice is."""
        draws = load_calibration(self.folders["data"])
        return [draws[0][:TRIAL_INPUTS]] if self.trial else draws

    @cached_property
    def views(self) -> Views:
        return self.task.training_views()

    @cached_property
    def teacher_function(self) -> TeacherFunction:
        taps = [t.teacher for t in self.recipe.distill.taps]
        # Vectors are small: torch takes many inputs at once, the OpenVINO graph one.
        if taps or self.recipe.device == "cuda" or self.task.output == "vector":
            return torch_teacher(self.teacher, taps, self.recipe.device)
        return openvino_teacher(self.teacher, self.spec, self.threads)

    def taught(self, x: Images) -> dict[str, Images]:
        """What the student learns of the teacher on normalised inputs."""
        outputs = self.teacher_function(x)
        return {**outputs, "logits": self.task.taught(outputs["logits"])}

    @cached_property
    def source(self) -> TeacherOutputs:
        """What the student learns from on the training views, labels too where the recipe asks for them."""
        made = self._teacher_source()
        if not self.recipe.distill.labels:
            return made
        return WithLabels(made, self.task.view_labels(self.recipe.seed))

    def _teacher_source(self) -> TeacherOutputs:
        """The teacher's outputs on the training views, from the cache or computed when asked for."""
        s = self.recipe.distill
        use_cache = s.cache == "always"
        if s.cache == "auto":
            draws = s.steps * s.batch
            choice = choose_source(self.views, self.taught, self.spec, s.views, draws, self.cache)
            use_cache = choice.cached
            self.reporter.note(f"  teacher outputs {choice.reason}")
        if not use_cache:
            return LiveOutputs(self.views, self.taught, self.spec, s.views)

        def told(done: int, total: int) -> None:
            self.reporter.step("teacher on views", done, total)

        return build_cache(self.cache, self.views, self.taught, self.spec, s.views, self.outputs_key, told)

    @property
    def outputs_key(self) -> str:
        """What the teacher's outputs on the training views depend on: weights, contract, settings, data, code and tools."""
        recipe = self.recipe
        settings = {
            "teacher": recipe.teacher.model_dump(mode="json"),
            "contract": self.spec.model_dump(mode="json"),
            "classes": self.classes,
            "seed": recipe.seed,
            "data": recipe.data.model_dump(mode="json"),
            "boxes": recipe.boxes.model_dump(mode="json"),
            "taps": [t.teacher for t in recipe.distill.taps],
        }
        code = code_hash((__name__, type(self.task).__module__))
        return sha256_of([self.teacher_key, self.task.inputs_key, settings, code, tool_versions()])

    @cached_property
    def selection_views(self) -> Inputs:
        """Views of what is held out for selection, which stand for other sensors."""
        wanted = SELECTION_SAMPLES if self.task.output == "vector" else SELECTION_VIEWS
        return self.task.selection_views(TRIAL_INPUTS if self.trial else wanted)

    @cached_property
    def teacher_on_views(self) -> Kept:
        """What is kept of the teacher's outputs on :attr:`selection_views`."""
        x = self.spec.normalise(self.selection_views)
        return self.task.keep_logits(np.concatenate([self.teacher_function(v[None])["logits"] for v in x]))

    def likeness(self, on_inputs: Kept, on_views: Kept) -> dict[str, float]:
        """Scores outputs without labels: likeness to the teacher on :attr:`selection` and on :attr:`selection_views`."""
        agreed = self.selection.agreement(on_inputs, self.teacher_on(self.selection))
        alike = self.task.view_likeness(on_views, self.teacher_on_views)
        return {"score": (agreed + alike) / 2, "agreement": agreed, "views_likeness": alike}

    @cached_property
    def validate(self) -> Callable[[nn.Module], dict[str, float]]:
        """:meth:`likeness` of a student in torch."""
        inputs, views = self.spec.normalise(self.selection.inputs), self.spec.normalise(self.selection_views)
        keep = self.task.keep_logits
        return lambda module: self.likeness(keep(logits_of(module, inputs)), keep(logits_of(module, views)))

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
        torch.manual_seed(self.recipe.seed)
        if student_entry(name).copies:
            kwargs = narrow_arguments(teacher, options)
            copied = build_student(name, kwargs)
            start_from(copied, teacher.net)
            return copied, kwargs
        kwargs = {**contract_arguments(name, self.spec, len(self.classes)), **options}
        return build_student(name, kwargs), kwargs

    def student(self, stage: str) -> nn.Module:
        """The student as a stage left it."""
        return load_model(self.folders[stage] / "model", build_student)


def prepare_torch(recipe: Recipe) -> None:
    """Threads and determinism for this process.

    Raises:
        MissingCapability: cuda is asked for and not there.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise MissingCapability("device: cuda was asked for, but torch sees no CUDA GPU; use --set device=cpu")
    torch.set_num_threads(recipe.threads or cpu_count())
    # Notes of tools to their own developers; errors still come through.
    for category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\..*")
    # Graphs are made static on purpose, and parity checks them.
    warnings.filterwarnings("ignore", category=TracerWarning)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def logits_of(module: nn.Module, x: Images, batch: int = 8) -> Images:
    """A module's outputs on normalised inputs, in evaluation mode."""
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        parts = [module(torch.from_numpy(x[i : i + batch]).to(device)).float().cpu() for i in range(0, len(x), batch)]
    module.train(was_training)
    return torch.cat(parts).numpy()


def distill_stage(context: StageContext, shop: Workshop) -> Distill:
    """Trains the student, or takes a copy of the teacher as it starts; writes ``model/`` and returns the record.

    Raises:
        RequestError: the student's arguments or a tap do not fit, or the loss is not finite.
    """
    student, kwargs = shop.build()
    settings = distill_settings(shop)
    if not settings.steps:
        trained, record = student, DistillRecord(best_score=shop.validate(student)["score"])
    else:
        trained, record = distill(
            shop.source, student, settings, context.resume, shop.recipe.seed, shop.validate, told(shop, "distill")
        )
    trained = trained.cpu().eval()
    save_model(trained, context.folder / "model", shop.student_name, kwargs)
    final = shop.validate(trained)
    return Distill(
        record=finite(record),
        params=count_params(trained),
        macs=count_macs(trained, _example(shop.spec)),
        selection=final,
    )


def distill_settings(shop: Workshop) -> DistillSettings:
    """The recipe's section as the settings of ``compress.distill``."""
    section = shop.recipe.distill
    values = section.model_dump(exclude={"views", "cache", "taps"})
    taps = tuple(Tap(t.teacher, t.student, t.weight) for t in section.taps)
    return DistillSettings(**values, taps=taps, device=shop.recipe.device, loss=shop.task.kind)


def prune_stage(context: StageContext, shop: Workshop) -> Prune:
    """Prunes the distilled student; writes ``model/`` and returns the record.

    Raises:
        RequestError: nothing can be pruned.
    """
    kwargs = shop.build()[1]
    pruned, record = pruned_student(shop, shop.student("distill"), kwargs, context.resume)
    save_model(pruned, context.folder / "model", shop.student_name, kwargs)
    return Prune(record=record)


def pruned_student(
    shop: Workshop, student: nn.Module, kwargs: dict[str, Any], workdir: Path
) -> tuple[nn.Module, PruneRecord]:
    """The recipe's pruning of a student that was built with ``kwargs``; goes on in ``workdir`` after a kill.

    Raises:
        RequestError: nothing can be pruned.
    """
    from rsedge.stages.latency import TargetLatency

    section = shop.recipe.prune
    assert section is not None
    latency = TargetLatency(shop, section.latency_on)
    target = PruneTarget(**section.target.model_dump())
    values = section.model_dump(exclude={"target", "recovery_steps", "recovery_lr", "latency_on"})
    settings = PruneSettings(**values, target=target, seed=shop.recipe.seed)
    hooks = PruneHooks(
        score=lambda module: shop.validate(module)["score"],
        latency=latency.estimate,
        compare=latency.comparison(1 - section.min_gain),
        recover=lambda module, number: _recover(module, number, workdir, shop),
        gradients=lambda module, number: _gradients(module, number, shop),
        inputs=lambda number: _training_batch(number, shop)[0],
        progress=lambda text: shop.reporter.note(f"  {text}"),
    )
    return prune(
        student, _example(shop.spec), settings, hooks, workdir=workdir, factory=shop.student_name, kwargs=kwargs
    )


def _recover(module: nn.Module, number: int, folder: Path, shop: Workshop) -> None:
    section = shop.recipe.prune
    assert section is not None
    if not section.recovery_steps:
        return
    base = distill_settings(shop)
    steps = section.recovery_steps
    settings = dataclasses.replace(
        base, steps=steps, lr=section.recovery_lr, ema=min(base.ema, 0.99), taps=(), validate_every=steps
    )
    workdir = folder / f"recovery-{number}"
    workdir.mkdir(exist_ok=True)
    name = f"prune step {number}: recovery"
    best, _ = distill(
        shop.source, copy.deepcopy(module), settings, workdir, shop.recipe.seed + number, None, told(shop, name)
    )
    module.load_state_dict(best.cpu().state_dict())


def batch_loss(module: nn.Module, number: int, shop: Workshop) -> Tensor:
    """The distillation loss on the batch that (seed, number) draws."""
    section, device = shop.recipe.distill, next(module.parameters()).device
    x, outputs = _training_batch(number, shop)
    found, shares = module(x.to(device)), {"logits": 1 - section.labels, LABELS: section.labels}
    losses = [
        share
        * logit_loss(
            shop.task.kind, found, outputs[name].to(device), section.temperature, section.balance, grid_of(module)
        )
        for name, share in shares.items()
        if share
    ]
    return torch.stack(losses).sum()


def _training_batch(number: int, shop: Workshop) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch of views that (seed, number) draws, normalised, and what is to be learned of it."""
    size = min(shop.recipe.distill.batch, shop.source.count)
    order = np.random.default_rng([shop.recipe.seed, 9, number]).permutation(shop.source.count)[:size]
    x, outputs = shop.source.batch(sorted(order.tolist()))
    return torch.from_numpy(x), {name: torch.from_numpy(np.asarray(values)) for name, values in outputs.items()}


def _gradients(module: nn.Module, number: int, shop: Workshop) -> None:
    batch_loss(module, number, shop).backward()  # type: ignore[no-untyped-call]


def told(shop: Workshop, name: str) -> Callable[[int, int, dict[str, float]], None]:
    """A hook that shows training steps under ``name``."""

    def on_step(step: int, total: int, parts: dict[str, float]) -> None:
        info = " ".join(f"{k} {v:.4f}" for k, v in list(parts.items())[:2])
        shop.reporter.step(name, step, total, info)

    return on_step


def _example(spec: InputSpec) -> Tensor:
    return torch.zeros(1, *spec.shape)


def finite(record: DistillRecord) -> DistillRecord:
    """JSON knows no infinity: a run without validation has no best score."""
    if not np.isfinite(record.best_score):
        return dataclasses.replace(record, best_score=0.0)
    return record


def _first_logits(student: nn.Module, shop: Workshop) -> Tensor:
    """What an untrained student gives for one empty input.

    Raises:
        RequestError: it cannot take the teacher's tile.
    """
    spec, name = shop.spec, shop.student_name
    multiple = 1 if name == TEACHER_ITSELF else student_entry(name).multiple
    fitting = max(multiple, round(spec.tile / multiple) * multiple)
    fix = f"it takes multiples of {multiple} pixels: set teacher.input.tile to {fitting} where the teacher takes it, or name "
    fix += "another student (`rsedge students`)"
    try:
        with torch.inference_mode():
            logits: Tensor = student.eval()(_example(spec))
    except (RuntimeError, AssertionError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        known = fix if spec.is_image and spec.tile % multiple else "give its builder other options"
        raise RequestError(
            f"student: '{name}' cannot take the teacher's input {spec.shape} ({why}); {known}"
        ) from error
    return logits


def check_student(shop: Workshop) -> None:
    """Builds the student once, so that wrong arguments fail before any work.

    Raises:
        RequestError: its builder does not take them, or it does not give logits for the teacher's tile.
    """
    student, kwargs = shop.build()
    logits = _first_logits(student, shop)
    expected = shop.task.expected_shape()
    if shop.task.kind == "boxes" and grid_of(student) is None:
        raise RequestError(f"student: '{shop.student_name}' is no detector; `rsedge students` lists them")
    if not shop.task.fits(tuple(logits.shape)):
        raise RequestError(f"student: {kwargs} gives logits {tuple(logits.shape)}, the teacher's are {expected}")
