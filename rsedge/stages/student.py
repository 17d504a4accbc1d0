"""The stage of ``student: auto``: builds and times the candidates, and keeps the choice for the stages that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from rsedge.cache.stage import StageContext, StageResult
from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.compress.prune.pruning import LatencyEstimate
from rsedge.data.errors import RequestError
from rsedge.models.students import build_student, contract_arguments
from rsedge.recipe.student_auto import (
    Candidate,
    auto_settings,
    auto_target,
    candidates_for,
    choose,
    latency_gate,
    table,
    verdict,
)
from rsedge.results.records import Student
from rsedge.stages.context import RunContext
from rsedge.stages.distill import check_student
from rsedge.stages.export import check_dla_student
from rsedge.stages.latency import TargetLatency

TEACHER = "the teacher"


def student_stage(context: StageContext, ctx: RunContext) -> Student:
    """Chooses the student; ``student`` of the record names it.

    Raises:
        RequestError: no candidate fits task and input, or none is fast enough.
    """
    target = auto_target(ctx.recipe)
    nets = {name: built(name, ctx) for name in candidates_for(ctx.recipe, ctx.teacher.spec.task, ctx.spec)}
    found, teacher, noise = timed(nets, ctx, target)
    limit, why = limit_ms(ctx, teacher)
    ctx.reporter.note(f"  limit {limit:.3g} ms on {target}: {why}" + (f"; {noise}" if noise else ""))
    for candidate in found:
        ctx.reporter.note(
            f"  {candidate.name}: {candidate.provenance} {candidate.latency_ms:.3g} ms, {candidate.params:,} params"
        )
    chosen = choose(found, limit)
    ctx.reporter.note(f"  student {chosen.name}, {verdict(chosen, chosen, limit)}")
    return Student(
        student=chosen.name,
        target=target,
        limit_ms=limit,
        reason=f"{chosen.name}: the most parameters at {chosen.provenance} latency within {limit:.3g} ms on {target} "
        f"({why})" + (f"; {noise}, so by prediction" if noise else ""),
        candidates=table(found, chosen, limit),
    )


def built(name: str, ctx: RunContext) -> nn.Module:
    """A student with its own defaults and random weights: what it costs on the target does not depend on them."""
    torch.manual_seed(ctx.recipe.seed)
    return build_student(name, contract_arguments(name, ctx.spec, len(ctx.classes), ctx.teacher.spec.finer)).eval()


def timed(
    nets: Mapping[str, nn.Module], ctx: RunContext, target: str
) -> tuple[list[Candidate], Callable[[str], LatencyEstimate], str]:
    """What each candidate costs, side by side; the teacher's latency on a target; what is to be said of the machine.

    A teacher that the limit is counted from, on this target, is timed in the same turns.
    """
    latency = TargetLatency(ctx, target)
    beside = teacher_target(ctx) == target
    modules = {**nets, **({TEACHER: ctx.teacher} if beside else {})}
    took, noise = latency.estimates(modules)

    def teacher(other: str) -> LatencyEstimate:
        return took[TEACHER] if other == target and beside else TargetLatency(ctx, other).estimate(ctx.teacher)

    found = []
    for name, net in nets.items():
        params, macs = count_params(net), count_macs(net, torch.zeros(1, *ctx.spec.shape))
        figures = took[name]
        found.append(
            Candidate(
                name=name, params=params, macs=macs, latency_ms=figures.ms, low_ms=figures.low, high_ms=figures.high,
                provenance=figures.provenance, predicted_ms=latency.predicted(net).ms,
            )
        )  # fmt: skip
    return found, teacher, noise


def teacher_target(ctx: RunContext) -> str | None:
    """The target on which the teacher's latency gives the limit; None where a limit in ms is given."""
    settings, gate = auto_settings(ctx.recipe), latency_gate(ctx.recipe)
    if settings.latency_ms is not None:
        return None
    if settings.speedup is not None:
        return auto_target(ctx.recipe)
    if gate is not None and gate.min_speedup is not None and gate.over is not None:
        return gate.over.removeprefix("teacher-").replace("openvino-", "openvino-cpu-")
    return None


def limit_ms(ctx: RunContext, teacher: Callable[[str], LatencyEstimate]) -> tuple[float, str]:
    """The limit (ms) and where it comes from, in words.

    Raises:
        RequestError: neither the section nor a gate gives one.
    """
    settings, gate, counted = auto_settings(ctx.recipe), latency_gate(ctx.recipe), teacher_target(ctx)
    if settings.latency_ms is not None:
        return settings.latency_ms, "student.latency_ms"
    if settings.speedup is not None and counted is not None:
        took = teacher(counted)
        return took.ms / settings.speedup, f"{settings.speedup:g} times faster than the teacher, {_words(took)}"
    if gate is not None and gate.max is not None:
        return gate.max, f"gate {gate.name}"
    if gate is not None and gate.min_speedup is not None and counted is not None:
        took = teacher(counted)
        return took.ms / gate.min_speedup, f"gate {gate.name}, {_words(took)}"
    raise RequestError("student auto: no limit; give latency_ms or speedup, or a latency gate")


def _words(found: LatencyEstimate) -> str:
    return f"{found.provenance} {found.ms:.3g} ms"


def take_student(ctx: RunContext, result: StageResult[Student]) -> None:
    """The student that was chosen is that of all stages that follow.

    Raises:
        RequestError: it does not fit the teacher or a target.
    """
    ctx.chosen = result.value.student
    check_student(ctx)
    check_dla_student(ctx)
