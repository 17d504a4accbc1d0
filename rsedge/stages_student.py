"""The stage of ``student: auto``: builds and times the candidates, and keeps the choice for the stages that follow."""

from __future__ import annotations

from typing import Any

import torch

from rsedge.compress.prune import LatencyEstimate
from rsedge.compress.prune_plan import count_macs, count_params
from rsedge.data.errors import RequestError
from rsedge.models.students import build_student, contract_arguments
from rsedge.stage import StageContext
from rsedge.stages_train import Workshop, estimate_latency
from rsedge.student_auto import (
    Candidate,
    auto_settings,
    auto_target,
    candidates_for,
    choose,
    latency_gate,
    table,
    verdict,
)


def student_stage(context: StageContext, shop: Workshop) -> dict[str, Any]:
    """Chooses the student; ``student`` in the returned record names it.

    Raises:
        RequestError: no candidate fits task and input, or none is fast enough.
    """
    target = auto_target(shop.recipe)
    limit, why = limit_ms(shop, target)
    shop.reporter.note(f"  limit {limit:.3g} ms on {target}: {why}")
    found = []
    for name in candidates_for(shop.recipe, shop.teacher.spec.task, shop.spec):
        candidate = timed(name, shop, target)
        found.append(candidate)
        shop.reporter.note(
            f"  {name}: {candidate.provenance} {candidate.latency_ms:.3g} ms, {candidate.params:,} params"
        )
    chosen = choose(found, limit)
    shop.reporter.note(f"  student {chosen.name}, {verdict(chosen, chosen, limit)}")
    return {
        "student": chosen.name,
        "target": target,
        "limit_ms": limit,
        "reason": f"{chosen.name}: the most parameters at {chosen.provenance} latency within {limit:.3g} ms on {target} "
        f"({why})",
        "candidates": table(found, chosen, limit),
    }


def timed(name: str, shop: Workshop, target: str) -> Candidate:
    """A student with its own defaults and random weights: what it costs on the target does not depend on them."""
    torch.manual_seed(shop.recipe.seed)
    net = build_student(name, contract_arguments(name, shop.spec, len(shop.classes))).eval()
    example = torch.zeros(1, *shop.spec.shape)
    params, macs = count_params(net), count_macs(net, example)
    took = estimate_latency(net, shop, target)
    return Candidate(
        name=name, params=params, macs=macs, latency_ms=took.ms, low_ms=took.low, high_ms=took.high,
        provenance=took.provenance,
    )  # fmt: skip


def limit_ms(shop: Workshop, target: str) -> tuple[float, str]:
    """The limit (ms) and where it comes from, in words.

    Raises:
        RequestError: neither the section nor a gate gives one.
    """
    settings, gate = auto_settings(shop.recipe), latency_gate(shop.recipe)
    if settings.latency_ms is not None:
        return settings.latency_ms, "student.latency_ms"
    if settings.speedup is not None:
        teacher = estimate_latency(shop.teacher, shop, target)
        return teacher.ms / settings.speedup, f"{settings.speedup:g} times faster than the teacher, {_words(teacher)}"
    if gate is not None and gate.max is not None:
        return gate.max, f"gate {gate.name}"
    if gate is not None and gate.min_speedup is not None and gate.over is not None:
        baseline = gate.over.removeprefix("teacher-")
        teacher = estimate_latency(shop.teacher, shop, baseline.replace("openvino-", "openvino-cpu-"))
        return teacher.ms / gate.min_speedup, f"gate {gate.name}, {_words(teacher)}"
    raise RequestError("student auto: no limit; give latency_ms or speedup, or a latency gate")


def _words(found: LatencyEstimate) -> str:
    return f"{found.provenance} {found.ms:.3g} ms"
