"""The stage ``verify`` of several parts: every target on the test set, part by part and all together, on its own executables."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from rsedge.cache.stage import StageContext
from rsedge.data.errors import MissingCapability
from rsedge.data.metrics.figures import ELSEWHERE
from rsedge.devices.measure.protocol import Measurement, measure_interleaved
from rsedge.devices.predict.latency import predict_target
from rsedge.recipe.checks import measured_here
from rsedge.results.parts import PartFigures, PartsTeacher, PartsVerify, WholeFigures
from rsedge.results.records import Predicted
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.session import Arrays
from rsedge.stages.parts.context import PartsContext, float_file
from rsedge.stages.parts.files import bytes_of, opened, opened_teacher, part_path

TEACHER = "teacher-openvino-f32"
SECONDS, TRIAL_SECONDS = 4.0, 0.2
LEAST_RUNS = 5
Sessions = dict[str, PartSession]


def verify_stage(context: StageContext, ctx: PartsContext) -> PartsVerify:
    """Figures of every target on the test set; latencies in turns, of the whole and of each part, beside the teacher's."""
    targets = {}
    with contextlib.ExitStack() as stack:
        here: dict[str, Sessions] = {TEACHER: stack.enter_context(opened_teacher(ctx))}
        for target in ctx.recipe.parsed_targets:
            sessions = stack.enter_context(opened(ctx, target))
            targets[target.name] = _figures(ctx, target, sessions)
            if measured_here(target):
                here[target.name] = sessions
        measurements = _wholes(ctx, here)
        parts = {name: _parts(ctx, name, here) for name in ctx.teachers}
    by_target = {target: {name: parts[name][target] for name in parts} for target in here}
    return PartsVerify(targets=targets, measurements=measurements, parts=by_target)


def _figures(ctx: PartsContext, target: Target, sessions: Sessions) -> WholeFigures:
    sure, metrics = ctx.whole_evidence(sessions, "test", f"verify, {target.name}")
    parts = {}
    for name, session in sessions.items():
        evidence = ctx.part_evidence(session, name, "test")
        path = part_path(ctx, target, name)
        rounded = path != float_file(name, path.suffix).of(ctx.folders)
        parts[name] = PartFigures(
            agreement=evidence[ELSEWHERE].own.value,
            evidence=evidence,
            size_bytes=bytes_of(path),
            precision=target.precision if rounded or not target.quantized else "f32",
        )
    interval, unavailable = (None, None) if measured_here(target) else _predicted(ctx, target)
    return WholeFigures(
        metrics=metrics, agreement=sure[ELSEWHERE].own.value, evidence=sure, parts=parts,
        size_bytes=sum(part.size_bytes for part in parts.values()),
        numerics=target.backend.here(target.device, target.precision).words, interval=interval, unavailable=unavailable,
    )  # fmt: skip


def _predicted(ctx: PartsContext, target: Target) -> tuple[Predicted | None, str | None]:
    """All parts' predictions, each as often as it runs."""
    calls = {name: part.calls for name, part in ctx.results.of(PartsTeacher).parts.items()}
    try:
        found = {name: predict_target(float_file(name, ".onnx").of(ctx.folders), target.name) for name in ctx.teachers}
    except MissingCapability as error:
        return None, str(error)
    low, mid, high = (
        sum(calls[n] * getattr(p, f"{which}_ms") for n, p in found.items()) for which in ("low", "mid", "high")
    )
    basis = next(iter(found.values())).basis
    return Predicted(
        low_ms=low, mid_ms=mid, high_ms=high, basis=f"{basis}; sum over parts, each as often as it runs"
    ), None


def _wholes(ctx: PartsContext, here: Mapping[str, Sessions]) -> dict[str, Measurement]:
    # A sample has no batch axis, which the measuring would look for: it is bound, and nothing is handed over.
    sample = ctx.samples("test")[0][0]
    runners = {name: _runner(ctx, sessions, sample) for name, sessions in here.items()}
    return _measured(ctx, runners, {}, here, "latency of the whole")


def _runner(ctx: PartsContext, sessions: Sessions, sample: Arrays) -> Any:
    return lambda _nothing: ctx.whole.run(sessions, sample)


def _parts(ctx: PartsContext, part: str, here: Mapping[str, Sessions]) -> dict[str, Measurement]:
    sample = ctx.recorded(part, "test")[0][0]
    runners = {name: sessions[part] for name, sessions in here.items()}
    return _measured(ctx, runners, dict.fromkeys(runners, sample), here, f"latency of {part}")


def _measured(
    ctx: PartsContext, runners: Mapping[str, Any], inputs: Mapping[str, Any], here: Mapping[str, Sessions], words: str
) -> dict[str, Measurement]:
    labels = {}
    for name, sessions in here.items():
        one = next(iter(sessions.values()))
        labels[name] = {
            "device": one.device, "runtime": one.runtime, "runtime_version": one.runtime_version,
            "precision": precision_of(name.rpartition("-")[2]).name,
        }  # fmt: skip
    found = measure_interleaved(
        runners, inputs, seconds=TRIAL_SECONDS if ctx.trial else SECONDS, warmup=1, min_runs=LEAST_RUNS, threads=ctx.threads,
        labels=labels, progress=lambda _runs, share: ctx.reporter.step(words, round(share * 100), 101),
    )  # fmt: skip
    ctx.reporter.clear()
    return found
