"""The quantize stage: INT8 that holds the recipe's gates, for each runtime on its own executable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsedge.cache.stage import StageContext
from rsedge.compress.quantize.int8 import QuantizeRecord
from rsedge.compress.quantize.search import Trial
from rsedge.compress.quantize.tune import TuningStep
from rsedge.data.temporary import TemporaryFolder
from rsedge.recipe.schema import Recipe
from rsedge.results.records import Quantize
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.precision import precision
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Delivered, Maker
from rsedge.stages.makers.registry import by_maker
from rsedge.stages.outputs import STUDENT_IR, ir_bytes


def quantize_stage(context: StageContext, ctx: RunContext) -> Quantize:
    """Writes ``student-int8`` (``.xml``, ``.onnx``, ``.tflite``) and ``<target>/model.onnx``, as the INT8 targets ask for them.

    What cannot be mended is delivered with outcome ``rejected`` and the figures of all that was tried: the gates decide.

    Raises:
        RequestError: unusable calibration.
        GateFailed: nothing could quantize the student at all for some target.
    """
    net = ctx.student(ctx.shipped)
    delivered: list[Delivered] = []
    with TemporaryFolder(context.folder) as scratch:
        for number, (maker, targets) in enumerate(int8_groups(ctx.recipe)):
            inside = scratch / f"{maker.backend}-{number}"
            delivered.append(maker.quantize(context.folder, ctx, net, targets, inside))
    named = len(delivered) > 1
    records = {name: one.record for one in delivered for name in one.targets}
    details = [{"target": ", ".join(d.targets), **r} if named else r for d in delivered for r in _rows(d.record)]
    reasons = [f"{', '.join(d.targets)}: {d.record.reason}" if named else d.record.reason for d in delivered]
    first = delivered[0].record
    assert first.found is not None
    return Quantize(
        outcome="rejected" if any(r.outcome == "rejected" for r in records.values()) else first.outcome,
        reason="; ".join(reasons), details=details, records=records,
        before={"score": first.reference.score, **first.reference.gates, "size_bytes": ir_bytes(STUDENT_IR.of(ctx.folders))},
        after={"score": first.found.score, **first.found.gates, "size_bytes": delivered[0].size_bytes},
        parity={n: gap for d in delivered for n, gap in d.parity.items()},
        own={n: made for d in delivered for n, made in d.own.items()},
    )  # fmt: skip


def int8_groups(recipe: Recipe) -> list[tuple[Maker, list[Target]]]:
    """INT8 targets by what makes their files; those that may share one file stand together, OpenVINO's first."""
    groups: list[tuple[Maker, list[Target]]] = []
    for maker, targets in by_maker(t for t in recipe.parsed_targets if precision(t.precision).quantized):
        alike: dict[Any, list[Target]] = {}
        for target in targets:
            alike.setdefault(maker.alike(target, recipe), []).append(target)
        groups += [(maker, same) for same in alike.values()]
    return groups


def _rows(record: QuantizeRecord) -> list[dict[str, Any]]:
    """One row for every model that was tried, in the order of the steps."""
    rows = [_row(t, t.settings.label()) for t in record.trials]
    if record.qat is not None:
        rows += [{"settings": f"trained under rounding, {p.step} steps", "outcome": "passed" if p.passed else "missed",
                  "score": p.score, "drop": record.reference.score - p.score, "latency_ms": None, "size_bytes": None,
                  "reason": record.qat.reason if p.step == record.qat.best else ""} for p in record.qat.points]  # fmt: skip
    if record.reversion is not None:
        rows += [_row(t, t.settings.label()) for t in record.reversion.trials]
    rows += [_tuned(step) for step in record.tuning]
    return rows


def _tuned(step: TuningStep) -> dict[str, Any]:
    """A step beside the model before it."""
    row = _row(step.trial, step.trial.settings.label())
    return row | {"outcome": "kept" if step.kept else "undone", "reason": step.reason}


def _row(trial: Trial, label: str) -> dict[str, Any]:
    gates: Mapping[str, float] = {} if trial.found is None else trial.found.gates
    return {
        "settings": label, "outcome": trial.outcome, "score": trial.score, "drop": trial.drop, **gates,
        "latency_ms": trial.latency_ms, "size_bytes": trial.size_bytes, "reason": trial.reason,
    }  # fmt: skip
