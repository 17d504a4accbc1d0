"""The stage of ``student: auto``: builds and times the candidates, and keeps the choice for the stages that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from rsedge.cache.stage import StageContext
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
from rsedge.stages.context import Workshop
from rsedge.stages.latency import TargetLatency

TEACHER = "the teacher"


def student_stage(context: StageContext, shop: Workshop) -> Student:
    """Chooses the student; ``student`` of the record names it.

    Raises:
        RequestError: no candidate fits task and input, or none is fast enough.
    """
    target = auto_target(shop.recipe)
    nets = {name: built(name, shop) for name in candidates_for(shop.recipe, shop.teacher.spec.task, shop.spec)}
    found, teacher, noise = timed(nets, shop, target)
    limit, why = limit_ms(shop, teacher)
    shop.reporter.note(f"  limit {limit:.3g} ms on {target}: {why}" + (f"; {noise}" if noise else ""))
    for candidate in found:
        shop.reporter.note(
            f"  {candidate.name}: {candidate.provenance} {candidate.latency_ms:.3g} ms, {candidate.params:,} params"
        )
    chosen = choose(found, limit)
    shop.reporter.note(f"  student {chosen.name}, {verdict(chosen, chosen, limit)}")
    return Student(
        student=chosen.name,
        target=target,
        limit_ms=limit,
        reason=f"{chosen.name}: the most parameters at {chosen.provenance} latency within {limit:.3g} ms on {target} "
        f"({why})" + (f"; {noise}, so by prediction" if noise else ""),
        candidates=table(found, chosen, limit),
    )


def built(name: str, shop: Workshop) -> nn.Module:
    """A student with its own defaults and random weights: what it costs on the target does not depend on them."""
    torch.manual_seed(shop.recipe.seed)
    return build_student(name, contract_arguments(name, shop.spec, len(shop.classes))).eval()


def timed(
    nets: Mapping[str, nn.Module], shop: Workshop, target: str
) -> tuple[list[Candidate], Callable[[str], LatencyEstimate], str]:
    """What each candidate costs, side by side; the teacher's latency on a target; what is to be said of the machine.

    A teacher that the limit is counted from, on this target, is timed in the same turns.
    """
    latency = TargetLatency(shop, target)
    beside = teacher_target(shop) == target
    modules = {**nets, **({TEACHER: shop.teacher} if beside else {})}
    took, noise = latency.estimates(modules)

    def teacher(other: str) -> LatencyEstimate:
        return took[TEACHER] if other == target and beside else TargetLatency(shop, other).estimate(shop.teacher)

    found = []
    for name, net in nets.items():
        params, macs = count_params(net), count_macs(net, torch.zeros(1, *shop.spec.shape))
        figures = took[name]
        found.append(
            Candidate(
                name=name, params=params, macs=macs, latency_ms=figures.ms, low_ms=figures.low, high_ms=figures.high,
                provenance=figures.provenance, predicted_ms=latency.predicted(net).ms,
            )
        )  # fmt: skip
    return found, teacher, noise


def teacher_target(shop: Workshop) -> str | None:
    """The target on which the teacher's latency gives the limit; None where a limit in ms is given."""
    settings, gate = auto_settings(shop.recipe), latency_gate(shop.recipe)
    if settings.latency_ms is not None:
        return None
    if settings.speedup is not None:
        return auto_target(shop.recipe)
    if gate is not None and gate.min_speedup is not None and gate.over is not None:
        return gate.over.removeprefix("teacher-").replace("openvino-", "openvino-cpu-")
    return None


def limit_ms(shop: Workshop, teacher: Callable[[str], LatencyEstimate]) -> tuple[float, str]:
    """The limit (ms) and where it comes from, in words.

    Raises:
        RequestError: neither the section nor a gate gives one.
    """
    settings, gate, counted = auto_settings(shop.recipe), latency_gate(shop.recipe), teacher_target(shop)
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
