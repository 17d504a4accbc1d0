"""The verify stage: every artefact on its own executable, against labels and the teacher, on the test set."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.cache.stage import StageContext
from rsedge.data.errors import MissingCapability
from rsedge.data.metrics.table import step_scores
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.measure.layers import profile_model
from rsedge.devices.measure.protocol import Measurement, measure_interleaved
from rsedge.devices.measure.rss import peak_rss
from rsedge.devices.predict.latency import predict_target
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.openvino import export_openvino
from rsedge.recipe.checks import measured_here
from rsedge.recipe.schema import Recipe, parse_target
from rsedge.results.records import (
    Layers,
    Predicted,
    TargetFigures,
    Verify,
)
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.inference.seams import Part, part_of_scene, seams
from rsedge.runtimes.inference.works.arrays import ArrayScene
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, Session
from rsedge.stages.artefacts import open_artefact
from rsedge.stages.context import RunContext
from rsedge.stages.disagreement import keep_cases
from rsedge.stages.makers.base import Artefact
from rsedge.stages.makers.registry import find_artefact
from rsedge.stages.outputs import F32_ON_OPENVINO, STUDENT_IR, STUDENT_ONNX, TEACHER_IR, ir_bytes, predictions
from rsedge.stages.pictures import SHOWN
from rsedge.stages.samples import sample_tiles
from rsedge.tasks.base import Prediction

MEASURE_SECONDS = 4.0


TRIAL_SECONDS = 0.2


PROFILE_RUNS = 10


MEMORY_READINGS = 3


def verify_stage(context: StageContext, ctx: RunContext) -> Verify:
    """Metrics, agreement, latency, memory and size of every target and of the teacher's baselines, on the test set.

    What the report shows of the test set goes into :data:`~rsedge.stages.pictures.SHOWN`.

    Latencies are taken interleaved in one run, so that their ratios are fair; targets that are not this machine get a
    predicted interval.
    """
    targets: dict[str, TargetFigures] = {}
    steps: dict[str, dict[str, Any]] = {}
    whole, part = ctx.seen_as(ctx.task.spec).test, seen_part(ctx)
    np.savez_compressed(context.folder / SHOWN, allow_pickle=False, **ctx.task.shown(whole, ctx.teacher_on(whole)))
    with contextlib.ExitStack() as stack:
        runners: dict[str, Session] = {}
        trained = [s for s in ctx.recipe.trained if s in ctx.folders]
        for stage in trained:
            # The last one's is what the export stage wrote; it is timed once, as the f32 target.
            exported = STUDENT_IR.of(ctx.folders)
            path = exported if stage == trained[-1] else _step_file(context, ctx, stage)
            session = stack.enter_context(
                contextlib.closing(open_session(path, "openvino", precision="f32", threads=ctx.threads))
            )
            if stage != trained[-1] or F32_ON_OPENVINO not in ctx.recipe.targets:
                runners[f"step-{stage}"] = session
            steps[stage] = _step_figures(session, path, ctx)
        for name, precision in (("teacher-openvino-f32", "f32"), ("teacher-openvino-int8", "int8")):
            path = TEACHER_IR[precision].of(ctx.folders)
            if path.is_file():
                session = open_session(path, "openvino", precision=precision, threads=ctx.threads)
                runners[name] = stack.enter_context(contextlib.closing(session))
        for target in ctx.recipe.parsed_targets:
            artefact = find_artefact(ctx, target)
            ctx.reporter.step("verify", len(targets), len(ctx.recipe.targets), target.name)
            session = stack.enter_context(contextlib.closing(open_artefact(artefact, ctx)))
            kept, targets[target.name] = _found(session, artefact, part, ctx)
            np.savez_compressed(context.folder / predictions(context.name, target.name).name, kept=kept)
            keep_cases(context.folder, target.name, ctx, ctx.test, kept)
            if measured_here(target):
                runners[target.name] = session
        timed = _measured(runners, ctx)
    measured = {
        name: record if name.startswith("step-") else _weighed(name, record, ctx) for name, record in timed.items()
    }
    layers = [_layers(name, ctx) for name in _profiled(measured, ctx)]
    return Verify(targets=targets, steps=steps, measurements=measured, layers=layers)


def weighed(recipe: Recipe) -> list[str]:
    """Targets whose memory a gate judges."""
    return [name for name in recipe.targets if any(g.metric == "memory" for g in recipe.gates_for(name))]


def _weighed(name: str, record: Measurement, ctx: RunContext) -> Measurement:
    """The measurement with the memory of a fresh process, of several where a gate judges it."""
    path, runtime, precision = _measured_file(name, ctx)
    readings = [
        peak_rss(path, runtime, precision=precision, threads=ctx.threads)
        for _ in range(MEMORY_READINGS if name in weighed(ctx.recipe) else 1)
    ]
    return record.model_copy(
        update={"peak_rss_bytes": round(statistics.median(readings)), "peak_rss_readings": readings}
    )


def _profiled(measured: Mapping[str, Measurement], ctx: RunContext) -> list[str]:
    """What is profiled: the fastest delivered artefact that runs here with a runtime that tells, and the teacher as it is."""
    here = [t.name for t in ctx.recipe.parsed_targets if t.name in measured and t.backend.tells_layers]
    fastest = sorted(here, key=lambda name: measured[name].latency_ms.p50)[:1]
    return [*fastest, *(n for n in ("teacher-openvino-f32",) if n in measured)]


def _layers(name: str, ctx: RunContext) -> Layers:
    path, runtime, precision = _measured_file(name, ctx)
    tile = sample_tiles(_of(name, ctx), 1)[0]
    rows = profile_model(path, runtime, tile, precision=precision, threads=ctx.threads, runs=PROFILE_RUNS)
    return Layers(
        name=name,
        runtime=runtime,
        device="cpu",
        precision=precision,
        threads=ctx.threads,
        runs=PROFILE_RUNS,
        layers=rows,
    )


def _step_file(context: StageContext, ctx: RunContext, stage: str) -> Path:
    """The student as a training stage left it, as f32 IR: what that step alone brought."""
    with TemporaryFolder(context.folder) as folder:
        graph = Deployable(ctx.student(stage), ctx.spec, ctx.task.output)
        onnx = export_onnx(graph, ctx.spec, ctx.classes, folder / "student.onnx")
        return export_openvino(onnx.path, context.folder / f"{stage}-f32.xml", ctx.spec, ctx.classes).xml


def _step_figures(session: Session, path: Path, ctx: RunContext) -> dict[str, Any]:
    test, reference = ctx.test, ctx.teacher_on(ctx.test)
    kept = ctx.task.predict(session, test.inputs)
    found = test.metrics(kept, reference)
    return {k: found[k] for k in step_scores() if k in found} | {
        "agreement": test.agreement(kept, reference),
        "size_bytes": ir_bytes(path),
    }


def _found(
    session: Session, artefact: Artefact, part: Part | None, ctx: RunContext
) -> tuple[Prediction, TargetFigures]:
    target = artefact.target
    test, reference = ctx.test, ctx.teacher_on(ctx.test)
    dn = test.inputs
    kept, here = ctx.task.predict(session, dn), measured_here(target)
    interval, unavailable = (None, None) if here else _predicted(ctx, target)
    return kept, TargetFigures(
        metrics=test.metrics(kept, reference), agreement=test.agreement(kept, reference), evidence=test.evidence(kept, reference),
        size_bytes=artefact.size_bytes, numerics=target.backend.here(target.device, target.precision).words,
        interval=interval, unavailable=unavailable, seams=None if part is None else seams(session, part, ctx.classes),
    )  # fmt: skip


def seen_part(ctx: RunContext) -> Part | None:
    """A part of the largest scene as the student sees it, to look at what tiling does; no choice looks at that."""
    dn = ctx.task.whole_scene()
    return None if dn is None else part_of_scene(ArrayScene(ctx.seen(dn), ctx.spec))


def _predicted(ctx: RunContext, target: Target) -> tuple[Predicted | None, str | None]:
    path = STUDENT_ONNX.of(ctx.folders)
    try:
        found = predict_target(path, target.name)
    except MissingCapability as error:
        return None, str(error)
    return Predicted(low_ms=found.low_ms, mid_ms=found.mid_ms, high_ms=found.high_ms, basis=found.basis), None


def _measured(runners: Mapping[str, Session], ctx: RunContext) -> dict[str, Measurement]:
    if not runners:
        return {}

    def report(_runs: int, share: float) -> None:
        ctx.reporter.step("latency, interleaved", round(share * 100), 101)

    inputs = {name: {INPUT: sample_tiles(_of(name, ctx), 1)[0]} for name in runners}
    seconds = TRIAL_SECONDS if ctx.trial else MEASURE_SECONDS
    found = measure_interleaved(runners, inputs, seconds=seconds, threads=ctx.threads, progress=report)
    ctx.reporter.clear()
    return found


def _of(name: str, ctx: RunContext) -> RunContext:
    """The run as the network sees it: the teacher may take other bands than the student."""
    return ctx.seen_as(ctx.teacher.spec.input_spec) if name.startswith("teacher-") else ctx


def _measured_file(name: str, ctx: RunContext) -> tuple[Path, str, str]:
    """The file of what was measured, its runtime and its precision."""
    if name.startswith("teacher-"):
        precision = name.rpartition("-")[2]
        return TEACHER_IR[precision].of(ctx.folders), "openvino", precision
    target = parse_target(name)
    return find_artefact(ctx, target).path, target.runtime, target.precision
