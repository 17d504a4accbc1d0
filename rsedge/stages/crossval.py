"""Cross-validation over folds of groups: what the shipped student would do in regions it has not seen.

For each fold a student learns from the other folds alone, is quantized for every INT8 target with the settings that it ships with,
and answers for the fold on that target's executable; the answers of all folds are judged together, beside the teacher's on the same
samples. What is held out for selection lies in no fold:
it alone chooses (steps, cuts, the shipped INT8 settings), so that no fold is judged by what was chosen on it. A student of the
catalogue has the shipped architecture and new weights; a copy of the teacher is made, trained and pruned as the shipped one was.
The head of a probed teacher is fitted to the other folds too. The shipped student itself is the one that has not seen fold 0.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.distill.statistics import Statistics as OfTeacher
from rsedge.compress.distill.statistics import statistics_of
from rsedge.compress.distill.teacher_cache import TeacherCache
from rsedge.compress.distill.teacher_outputs import (
    TeacherOutputs,
    WithLabels,
    cached_outputs,
    choose_source,
)
from rsedge.compress.distill.training import distill
from rsedge.compress.standing import TakeStanding
from rsedge.data.files import atomic_path
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.statistics import Statistics
from rsedge.data.metrics.table import CROSSVAL, needing
from rsedge.data.temporary import TemporaryFolder
from rsedge.models.students import student_entry
from rsedge.results.records import Crossval, Quantize, Replace
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.session import LOGITS
from rsedge.stages.context import RunContext, logits_of, report_progress
from rsedge.stages.distill import distill_settings
from rsedge.stages.makers.base import Maker
from rsedge.stages.probe import refitted
from rsedge.stages.prune import pruned_student
from rsedge.stages.quantize import int8_groups
from rsedge.stages.replace import replaced_alike
from rsedge.tasks.base import Folds, Index, Inputs, Judge, Prediction

Answers = dict[str, Prediction]
UNTRAINED = "in the folds INT8 is calibrated alone; the delivered network was trained under rounding too"


def crossval_stage(context: StageContext, ctx: RunContext) -> Crossval:
    """Metrics over all folds for ``teacher``, ``f32`` and every INT8 target."""
    folds, quantized = ctx.task.folds, ctx.results.maybe(Quantize)
    found: list[Answers] = []
    for fold in range(folds.count):
        ctx.reporter.note(f"  fold {fold + 1} of {folds.count}")
        found.append(_fold(context, ctx, folds, fold, quantized))
    answers = {name: folds.joined([one[name] for one in found]) for name in found[0]}
    metrics = {name: folds.judge.metrics(kept, answers["teacher"]) for name, kept in answers.items()}
    sure = _evidence(folds.judge, answers)
    for _, (first, *others) in _int8_files(ctx, quantized):
        metrics |= {t.name: metrics[first.name] for t in others}
        sure |= {t.name: sure[first.name] for t in others}
    return Crossval(folds=folds.count, metrics=metrics, evidence=sure, notes=_notes(folds.judge.note, sure, quantized))


def _int8_files(ctx: RunContext, quantized: Quantize | None) -> list[tuple[Maker, list[Target]]]:
    """INT8 targets by the file they share, with what makes it."""
    return [] if quantized is None else int8_groups(ctx.recipe)


def _notes(few: str | None, networks: Iterable[str], quantized: Quantize | None) -> dict[str, str]:
    """What is to be said of each network's figures; ``few``: what is to be said of all of them."""
    trained = {name for name, record in quantized.records.items() if record.trained} if quantized else set()
    remarks = {name: "; ".join(t for t in (UNTRAINED if name in trained else None, few) if t) for name in networks}
    return {name: text for name, text in remarks.items() if text}


def _evidence(judge: Judge, answers: Answers) -> dict[str, dict[str, Evidence]]:
    """How sure the pooled figures are, by network and then by the name that gates give them."""
    statistics = {name: judge.statistics(kept, answers["teacher"]) for name, kept in answers.items()}
    named = {
        name: Statistics(found.unit, {metric: found.of[metric.removesuffix(CROSSVAL)] for metric in needing("folds")
                                      if metric.removesuffix(CROSSVAL) in found.of})
        for name, found in statistics.items()
    }  # fmt: skip
    return {name: evidence(own, named["teacher"], judge.seed) for name, own in named.items() if name != "teacher"}


@dataclasses.dataclass
class _FoldContext(RunContext):
    """What the stages share, for one fold: it knows the samples of the other folds alone, and chooses by those of selection."""

    fold: int = 0
    work: Path = Path()

    @classmethod
    def of(cls, ctx: RunContext, fold: int, work: Path) -> _FoldContext:
        shared = {f.name: getattr(ctx, f.name) for f in dataclasses.fields(RunContext)}
        work.mkdir(exist_ok=True)
        own = cls(**shared, fold=fold, work=work)
        own.teacher = refitted(ctx, own.known) if ctx.recipe.teacher.probe else ctx.teacher
        return own

    @property
    def known(self) -> Index:
        """Samples of the other folds, apart from this one."""
        return self.task.folds.known(self.fold)

    @property
    def fold_seed(self) -> int:
        return self.recipe.seed + 100 * (self.fold + 1)

    @cached_property
    def source(self) -> TeacherOutputs:
        name = f"fold {self.fold + 1}"
        views, count = self.task.folds.views(self.fold, self.fold_seed), self.recipe.distill.views
        folder = self.work / "teacher"
        choice = choose_source(
            views, self.ask_in_batches, count, count, folder, "always", exact=self.task.kind == "boxes"
        )
        made = cached_outputs(
            TeacherCache(folder, choice.record), views, self.training_targets, self.read, count, self.teacher_batch,
            lambda done, total: self.reporter.step(f"{name}: teacher on views", done, total),
        )  # fmt: skip
        labelled = self.recipe.distill.labels > 0
        return WithLabels(made, self.task.folds.labels(self.fold, self.fold_seed)) if labelled else made

    @cached_property
    def teacher_statistics(self) -> OfTeacher:
        return statistics_of(self.source)

    @cached_property
    def validate(self) -> Callable[[nn.Module], dict[str, float]]:
        """Agreement with the teacher, whose head may be refitted for this fold, on the samples of selection."""
        x, keep, agreement = self.spec.normalise(self.selection.inputs), self.task.keep_logits, self.selection.agreement
        reference = keep(self.ask_teacher(self.seen_as(self.task.spec).selection.inputs)[LOGITS])
        return lambda module: {"score": agreement(keep(logits_of(module, x)), reference)}

    @cached_property
    def standing(self) -> TakeStanding:
        """Gates judge the answers of all folds together."""
        return lambda module: None


def _fold(
    context: StageContext,
    ctx: RunContext,
    folds: Folds,
    fold: int,
    quantized: Quantize | None,
) -> Answers:
    """Answers for the samples of one fold; those of a fold that was done before a kill are read."""
    stored = context.resume / f"fold-{fold}.npz"
    if stored.is_file():
        with np.load(stored, allow_pickle=False) as z:
            return {name: z[name] for name in z.files}
    own = _FoldContext.of(ctx, fold, context.resume / f"fold-{fold}")
    net = (
        (_copied(own) if student_entry(ctx.student_name).copies else _trained(own, _fresh(own, ctx.shipped)))
        .cpu()
        .eval()
    )
    inputs, task = folds.inputs(fold), ctx.task
    answers = {
        "teacher": task.keep_logits(own.ask_teacher(inputs)[LOGITS]),
        "f32": task.keep_logits(logits_of(net, ctx.read(inputs))),
    }
    for maker, targets in _int8_files(ctx, quantized):
        assert quantized is not None
        answers[targets[0].name] = _int8(net, own, ctx.seen(inputs), maker, targets, quantized)
    with atomic_path(stored) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, allow_pickle=False, **answers)
    return answers


def _copied(ctx: _FoldContext) -> nn.Module:
    """A copy of the teacher, which has its weights to lose: trained, pruned and replaced as the shipped one was."""
    net, kwargs = ctx.build()
    if ctx.recipe.distill.steps:
        net = _trained(ctx, net)
    if ctx.recipe.prune is not None:
        net = pruned_student(ctx, net.cpu().eval(), kwargs, ctx.work)[0]
    replaced = ctx.results.maybe(Replace)
    return net if replaced is None else replaced_alike(net.cpu().eval(), replaced.record, ctx, ctx.work / "replace")


def _trained(ctx: _FoldContext, net: nn.Module) -> nn.Module:
    settings = dataclasses.replace(distill_settings(ctx), taps=())
    name = f"fold {ctx.fold + 1}: distill"
    return distill(ctx.source, net, settings, ctx.work, ctx.fold_seed, None, report_progress(ctx, name))[0]


def _fresh(ctx: _FoldContext, student: str) -> nn.Module:
    """The shipped architecture with new weights."""
    torch.manual_seed(ctx.fold_seed)
    net = copy.deepcopy(ctx.student(student)).requires_grad_(True)
    for layer in net.modules():
        reset: Any = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
    return net


def _int8(
    net: nn.Module, ctx: _FoldContext, inputs: Inputs, maker: Maker, targets: list[Target], quantized: Quantize
) -> Prediction:
    """Answers of ``net`` as these targets would run it: rounded with the settings they ship with, on their own executable."""
    settings = quantized.records[targets[0].name].chosen
    assert settings is not None
    tiles = list(ctx.seen(ctx.task.folds.calibration(ctx.fold)))
    with TemporaryFolder() as folder:
        runtime = maker.int8(ctx, targets, folder)
        return ctx.task.keep_logits(runtime.int8(runtime(net).make(tiles, settings))(inputs))
