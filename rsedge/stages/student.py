"""The stage of ``student: auto``: builds and times the candidates, and keeps the choice for the stages that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from rsedge.cache.stage import StageContext, StageResult
from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.compress.prune.pruning import LatencyEstimate
from rsedge.data.errors import RequestError
from rsedge.models.students import build_student, contract_arguments
from rsedge.recipe.schema import GateSection, Recipe
from rsedge.recipe.student_auto import (
    Candidate,
    auto_settings,
    auto_target,
    candidates_for,
    choose,
    latency_gates,
    table,
    verdict,
)
from rsedge.results.records import Student
from rsedge.stages.context import RunContext
from rsedge.stages.distill import check_student
from rsedge.stages.export import check_for_targets
from rsedge.stages.latency import Contestant, TargetLatency, estimates


@dataclass(frozen=True)
class Limit:
    """What a candidate may take (ms), where that comes from in words, and the target of the teacher that it is counted from."""

    ms: float
    why: str
    counted: str | None = None


def student_stage(context: StageContext, ctx: RunContext) -> Student:
    """Chooses the student; ``student`` of the record names it.

    Raises:
        RequestError: no candidate fits task and input, or none is fast enough.
    """
    target = auto_target(ctx.recipe)
    latency, whole = TargetLatency(ctx, target), ctx.seen_as(ctx.teacher.spec.input_spec)
    counted = {t: TargetLatency(whole, t) for t in teacher_targets(ctx.recipe)}
    seen = {name: weighed(name, latency, ctx) for name in candidates_for(ctx.recipe, ctx.teacher.spec.task, ctx.spec)}
    teachers = {_teacher_on(t): on.contestant(ctx.teacher) for t, on in counted.items()}
    took, noise = estimates({name: one.timed for name, one in seen.items()} | teachers)
    limit = tightest(ctx.recipe, {t: took[_teacher_on(t)] for t in counted})
    found = [candidate(name, one, took[name]) for name, one in seen.items()]
    if limit.counted is not None and any(c.torn(limit.ms) for c in found):
        # The limit is a share of the teacher's time; so is what the prediction decides by.
        teacher = _teacher_on(limit.counted)
        scale = took[teacher].ms / teachers[teacher].predict().ms
        found = [c.model_copy(update={"predicted_ms": c.predicted_ms * scale}) for c in found]
    ctx.reporter.note(f"  limit {limit.ms:.3g} ms on {target}: {limit.why}" + (f"; {noise}" if noise else ""))
    for one in found:
        ctx.reporter.note(f"  {one.name}: {one.provenance} {one.latency_ms:.3g} ms, {one.params:,} params")
    chosen = choose(found, limit.ms)
    ctx.reporter.note(f"  student {chosen.name}, {verdict(chosen, chosen, limit.ms)}")
    return Student(
        student=chosen.name,
        target=target,
        limit_ms=limit.ms,
        reason=f"{chosen.name}: the most parameters at {chosen.provenance} latency within {limit.ms:.3g} ms on {target} "
        f"({limit.why})" + (f"; {noise}, so by prediction" if noise else ""),
        candidates=table(found, chosen, limit.ms),
    )


def built(name: str, ctx: RunContext) -> nn.Module:
    """A student with its own defaults and random weights: what it costs on the target does not depend on them."""
    torch.manual_seed(ctx.recipe.seed)
    row, oriented = ctx.teacher.spec, ctx.recipe.boxes.oriented
    asked = contract_arguments(name, ctx.spec, len(ctx.classes), row.finer, oriented, row.stride)
    return build_student(name, asked).eval()


@dataclass(frozen=True)
class Weighed:
    """A candidate's figures, and what times it; the network itself is gone."""

    params: int
    macs: int
    timed: Contestant


def weighed(name: str, latency: TargetLatency, ctx: RunContext) -> Weighed:
    """Builds a candidate and lets it go again: memory holds one network at a time."""
    net = built(name, ctx)
    return Weighed(count_params(net), count_macs(net, torch.zeros(1, *ctx.spec.shape)), latency.contestant(net).apart())


def candidate(name: str, one: Weighed, took: LatencyEstimate) -> Candidate:
    """A candidate with what it costs."""
    return Candidate(
        name=name, params=one.params, macs=one.macs, latency_ms=took.ms, low_ms=took.low, high_ms=took.high,
        provenance=took.provenance, predicted_ms=one.timed.predict().ms,
    )  # fmt: skip


def _teacher_on(target: str) -> str:
    return f"the teacher on {target}"


def teacher_targets(recipe: Recipe) -> list[str]:
    """The targets on which the teacher's latency gives a limit; they are timed in the same turns as the candidates."""
    settings = auto_settings(recipe)
    if settings.latency_ms is not None:
        return []
    if settings.speedup is not None:
        return [auto_target(recipe)]
    return list(dict.fromkeys(_baseline(gate) for gate in latency_gates(recipe) if gate.over is not None))


def _baseline(gate: GateSection) -> str:
    assert gate.over is not None
    return gate.over.removeprefix("teacher-").replace("openvino-", "openvino-cpu-")


def tightest(recipe: Recipe, teacher: Mapping[str, LatencyEstimate]) -> Limit:
    """The least of all limits; ``teacher`` is what the teacher takes, by target.

    Raises:
        RequestError: neither the section nor a gate gives one.
    """
    settings = auto_settings(recipe)

    def counted(target: str, speedup: float, why: str) -> Limit:
        return Limit(teacher[target].ms / speedup, f"{why}, {_words(teacher[target])}", target)

    if settings.latency_ms is not None:
        return Limit(settings.latency_ms, "student.latency_ms")
    if settings.speedup is not None:
        return counted(auto_target(recipe), settings.speedup, f"{settings.speedup:g} times faster than the teacher")
    gates = latency_gates(recipe)
    limits = [Limit(g.max, f"gate {g.name}") for g in gates if g.max is not None]
    limits += [counted(_baseline(g), g.min_speedup, f"gate {g.name}") for g in gates if g.min_speedup is not None]
    if not limits:
        raise RequestError("student auto: no limit; give latency_ms or speedup, or a latency gate")
    return min(limits, key=lambda limit: limit.ms)


def _words(found: LatencyEstimate) -> str:
    return f"{found.provenance} {found.ms:.3g} ms"


def take_student(ctx: RunContext, result: StageResult[Student]) -> None:
    """The student that was chosen is that of all stages that follow.

    Raises:
        RequestError: it does not fit the teacher or a target.
    """
    ctx.chosen = result.value.student
    check_student(ctx)
    check_for_targets(ctx)
