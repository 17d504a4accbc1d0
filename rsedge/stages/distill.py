"""The distill stage: the student learns from the teacher."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.cache.stage import StageContext
from rsedge.compress.distill.training import DistillRecord, DistillSettings, Tap, check_losses, distill
from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.data.errors import RequestError
from rsedge.models.families import network_features
from rsedge.models.features import Features, chosen
from rsedge.models.published import published
from rsedge.models.structure import save_model
from rsedge.models.students import student_entry
from rsedge.recipe.schema import TEACHER_ITSELF
from rsedge.results.records import Distill
from rsedge.stages.context import RunContext, report_progress, reported
from rsedge.stages.outputs import weights_of
from rsedge.stages.teachers import own_taps
from rsedge.stages.training import choice, example_input


def distill_stage(context: StageContext, ctx: RunContext) -> Distill:
    """Trains the student, or takes a copy of the teacher as it starts; writes ``model/`` and returns the record.

    Raises:
        RequestError: the student's arguments or a tap do not fit, or the loss is not finite.
    """
    trained, record, kwargs = distilled(context, ctx)
    if not record.steps:
        record = dataclasses.replace(record, best_score=ctx.validate(trained)["score"])
    trained = trained.cpu().eval()
    save_model(trained, context.folder / weights_of(context.name).name, ctx.student_name, kwargs)
    final = ctx.validate(trained)
    return Distill(
        record=finite(record),
        params=count_params(trained),
        macs=count_macs(trained, example_input(ctx.spec)),
        selection=final,
    )


def distilled(context: StageContext, ctx: RunContext) -> tuple[nn.Module, DistillRecord, dict[str, Any]]:
    """The student after its training, what happened, and the arguments it was built with; all processes of a group call it alike,
    and the one that leads has the best student.

    Raises:
        RequestError: as :func:`distill_stage`.
    """
    student, kwargs = ctx.build()
    settings, group = distill_settings(ctx), ctx.group
    if not settings.steps:
        return student, DistillRecord(), kwargs
    with group.cores(ctx.threads):
        ctx.agree()
        trained, record = distill(
            ctx.source,
            student,
            settings,
            context.resume,
            ctx.recipe.seed,
            reported(ctx, "distill", lambda module: ctx.validate(module)),
            report_progress(ctx, "distill"),
            student_features(ctx, student) if settings.taps else (),
            trust=group.of_leader(lambda: ctx.trust) if settings.hard_views else None,
            group=group,
        )
    return trained, record, kwargs


def distill_settings(ctx: RunContext) -> DistillSettings:
    """The recipe's section as the settings of ``compress.distill``."""
    section = ctx.recipe.distill
    values = section.model_dump(exclude={"views", "cache", "teacher_autocast", "taps", "loss"})
    taps = tuple(Tap(t.teacher, t.student, t.weight, choice(t.loss), t.connector) for t in section.taps)
    losses = tuple(choice(loss) for loss in section.loss)
    return DistillSettings(**values, losses=losses, taps=taps, device=ctx.recipe.device, loss=ctx.task.kind)


def student_features(ctx: RunContext, student: nn.Module) -> Features:
    """What can be tapped of the student: of a copy of the teacher what its family publishes."""
    name = ctx.student_name
    if name == TEACHER_ITSELF or (ctx.own_student is None and student_entry(name).copies):
        return network_features(ctx.teacher.spec.family, student, ctx.spec.shape)
    return published(student, (example_input(ctx.spec),))


def _check_taps(ctx: RunContext, student: nn.Module) -> None:
    """
    Raises:
        RequestError: a tap names no feature of its side, or a loss or connector is none for this task.
    """
    check_losses(distill_settings(ctx))
    if taps := ctx.recipe.distill.taps:
        where = "steps.distill.taps.teacher"
        chosen(ctx.teacher.features, own_taps(ctx.taps, 1), where, "the teacher")
        for other in ctx.others:
            chosen(other.teacher.features, own_taps(ctx.taps, other.number), where, f"teacher {other.number}")
        chosen(student_features(ctx, student), [t.student for t in taps], "steps.distill.taps.student", "the student")


def finite(record: DistillRecord) -> DistillRecord:
    """JSON knows no infinity: a run without validation has no best score."""
    if not np.isfinite(record.best_score):
        return dataclasses.replace(record, best_score=0.0)
    return record


def _first_logits(student: nn.Module, ctx: RunContext) -> Tensor:
    """What an untrained student gives for one empty input.

    Raises:
        RequestError: it cannot take the teacher's tile.
    """
    spec, name = ctx.spec, ctx.student_name
    multiple = 1 if name == TEACHER_ITSELF or ctx.own_student is not None else student_entry(name).multiple
    fitting = max(multiple, round(spec.tile / multiple) * multiple)
    fix = f"it takes multiples of {multiple} pixels: set teacher.input.tile to {fitting} where the teacher takes it, or name "
    fix += "another student (`rsedge students`)"
    try:
        with torch.inference_mode():
            logits: Tensor = student.eval()(example_input(spec))
    except (RuntimeError, AssertionError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        known = fix if spec.is_image and spec.tile % multiple else "give its builder other options"
        raise RequestError(
            f"student: '{name}' cannot take the teacher's input {spec.shape} ({why}); {known}"
        ) from error
    return logits


def check_student(ctx: RunContext) -> None:
    """Builds the student once, so that wrong arguments fail before any work.

    Raises:
        RequestError: its builder does not take them, it does not give logits for the teacher's tile, or a tap names nothing.
    """
    name, does = ctx.student_name, ctx.task.does
    entry = None if name == TEACHER_ITSELF or ctx.own_student is not None else student_entry(name)
    if entry is not None and not entry.copies and does not in entry.tasks:
        raise RequestError(
            f"student: '{name}' is for {', '.join(entry.tasks)}, the teacher does {does}; `rsedge students` lists them"
        )
    student, kwargs = ctx.build()
    logits = _first_logits(student, ctx)
    expected = ctx.task.expected_shape()
    if lacking := next((n for n in ctx.task.student_has if getattr(student, n, None) is None), None):
        raise RequestError(
            f"student: '{name}' has no {lacking}: it is no student for {does}; `rsedge students` lists them"
        )
    if not ctx.task.fits(tuple(logits.shape)):
        raise RequestError(f"student: {kwargs} gives logits {tuple(logits.shape)}, the teacher's are {expected}")
    _check_taps(ctx, student)
