"""The report of a recipe of several parts, from the stages' records."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import StageResult, StageValue
from rsedge.devices.measure.protocol import speedup
from rsedge.reports.assets import ReportAssets
from rsedge.reports.schema import (
    BaselineRecord,
    Interval,
    PartRow,
    Report,
    StageRecord,
    TargetRecord,
    TeacherRecord,
)
from rsedge.results.data import Data
from rsedge.results.parts import PartsDistill, PartsExport, PartsQuantize, PartsTeacher, PartsVerify
from rsedge.results.records import Bundles
from rsedge.runtimes.bundle.manifest import Target
from rsedge.stages.origin import origin_of, publish
from rsedge.stages.parts.context import PartsContext
from rsedge.stages.parts.verify import TEACHER
from rsedge.stages.report import data_record, environment, training_curves
from rsedge.stages.rows import ran
from rsedge.stages.soaks import soak_of
from rsedge.version import __version__


def write_report(run: RunFolder, ctx: PartsContext, seconds: float) -> Report:
    """Writes its files and returns the record."""
    report = _report(ctx, seconds)
    publish(run, report, _assets(ctx))
    return report


def _report(ctx: PartsContext, seconds: float) -> Report:
    results, recipe = ctx.results, ctx.recipe
    return Report(
        name=recipe.name,
        rsedge_version=__version__,
        classes=list(ctx.reference("selection")[0]),
        teacher=_teacher(ctx),
        stages=[_row(result) for result in results.values()],
        targets=[_target(ctx, target) for target in recipe.parsed_targets],
        baselines=[_baseline(ctx)],
        environment=environment(ctx.threads),
        origin=origin_of(ctx.run, recipe, results),
        data=data_record(results.of(Data)),
        seconds=seconds,
        strict=recipe.strict,
        notes=_notes(ctx),
    )


def _teacher(ctx: PartsContext) -> TeacherRecord:
    found, rows = ctx.results.of(PartsTeacher), [own.teacher.spec for own in ctx.teachers.values()]
    named = {row.name: row for row in rows}
    return TeacherRecord(
        name=", ".join(named),
        params=sum(part.params for part in found.parts.values()),
        size_bytes=_teacher_bytes(ctx),
        latency_ms=ctx.results.of(PartsVerify).measurements[TEACHER].latency_ms,
        metrics=found.metrics,
        source="; ".join(dict.fromkeys(row.source for row in named.values())),
        licence="; ".join(dict.fromkeys(row.licence for row in named.values())),
    )


def _teacher_bytes(ctx: PartsContext) -> int:
    export = ctx.results.of(PartsExport)
    return sum((export.teacher.get(name) or files).sizes["openvino"] for name, files in export.parts.items())


def _baseline(ctx: PartsContext) -> BaselineRecord:
    measured = ctx.results.of(PartsVerify).measurements[TEACHER]
    return BaselineRecord(
        name=TEACHER, runtime="openvino", device="cpu", precision="f32", provenance="measured", latency_ms=measured.latency_ms,
        throughput_per_s=measured.throughput_per_s, size_bytes=_teacher_bytes(ctx),
        metrics=ctx.results.of(PartsTeacher).metrics, measurement=measured, reason="the teacher's parts as they are",
    )  # fmt: skip


def _target(ctx: PartsContext, target: Target) -> TargetRecord:
    verify = ctx.results.of(PartsVerify)
    found, measured = verify.targets[target.name], verify.measurements.get(target.name)
    record: dict[str, Any] = {
        "name": target.name, "runtime": target.runtime, "device": target.device, "precision": target.precision,
        "size_bytes": found.size_bytes, "metrics": found.metrics, "agreement": found.agreement, "evidence": found.evidence,
        "bundle": f"bundles/{target.name}", "params": _params(ctx), "parts": _part_rows(ctx, target),
        "soak": soak_of(ctx.run, target.name),
        "gates": ctx.results.of(Bundles).verdicts[target.name].gates,
    }  # fmt: skip
    if measured is not None:
        record |= {"provenance": "measured", "latency_ms": measured.latency_ms, "measurement": measured,
                   "throughput_per_s": measured.throughput_per_s,
                   "speedup": speedup(verify.measurements[TEACHER], measured)}  # fmt: skip
    elif found.interval is not None:
        record |= {"provenance": "predicted", "interval": Interval(**found.interval.model_dump())}
    else:
        record |= {"provenance": "unavailable"}
    if measured is None:
        missing = f"; latency: {found.unavailable}" if found.unavailable else ""
        record["reason"] = f"numerics: {found.numerics}{missing}"
    return TargetRecord.model_validate(record)


def _params(ctx: PartsContext) -> int:
    taught = ctx.results.maybe(PartsDistill)
    small = {} if taught is None else taught.parts
    teacher = ctx.results.of(PartsTeacher).parts
    return sum(small[name].params if name in small else part.params for name, part in teacher.items())


def _part_rows(ctx: PartsContext, target: Target) -> list[PartRow]:
    verify, recorded = ctx.results.of(PartsVerify), ctx.results.of(PartsTeacher).parts
    timed = verify.parts.get(target.name, {})
    return [
        PartRow(
            name=name, precision=part.precision, size_bytes=part.size_bytes, agreement=part.agreement,
            latency_ms=timed[name].latency_ms if name in timed else None,
            teacher_ms=verify.parts[TEACHER][name].latency_ms if timed else None, calls=recorded[name].calls,
        )
        for name, part in verify.targets[target.name].parts.items()
    ]  # fmt: skip


def _notes(ctx: PartsContext) -> list[str]:
    notes = list(ctx.results.remarks)
    if any(verify.interval is not None for verify in ctx.results.of(PartsVerify).targets.values()):
        notes.append(
            "Latencies of devices that are not here are predicted intervals; their accuracy is of the same files on this "
            "machine's CPU."
        )
    reused = [result.name for result in ctx.results.values() if result.reused]
    if reused:
        notes.append(f"Reused from an earlier run with the same inputs: {', '.join(reused)}.")
    return notes


def _assets(ctx: PartsContext) -> ReportAssets:
    measured, taught = ctx.results.of(PartsVerify).measurements, ctx.results.maybe(PartsDistill)
    records = {} if taught is None else {f"distill {name}": part.record for name, part in taught.parts.items()}
    history = training_curves(records)
    return ReportAssets(latency_samples={name: m.samples_ms for name, m in measured.items()}, history=history)


def _row(result: StageResult[Any]) -> StageRecord:
    fields = {"outcome": "applied"} | fields_of(result.value)
    return StageRecord.model_validate(fields | ran(result))


@singledispatch
def fields_of(value: StageValue) -> dict[str, Any]:
    """Fields of :class:`StageRecord` that only this kind of stage can tell."""
    return {}


@fields_of.register(PartsTeacher)
def _of_teacher(value: PartsTeacher) -> dict[str, Any]:
    return {
        "reason": "its parts run together on every sample; what each was given is kept",
        "details": [
            {"part": name, "params": part.params, "calls per sample": part.calls,
             **{f"samples, {role}": count for role, count in part.samples.items()}}
            for name, part in value.parts.items()
        ],
    }  # fmt: skip


@fields_of.register(PartsDistill)
def _of_distill(value: PartsDistill) -> dict[str, Any]:
    return {
        "details": [
            {"part": name, "params": part.params, "agreement": part.agreement, "best step": part.record.best_step,
             "steps": part.record.steps}
            for name, part in value.parts.items()
        ]
    }  # fmt: skip


@fields_of.register(PartsExport)
def _of_export(value: PartsExport) -> dict[str, Any]:
    rows = [
        {"part": name, **{f"{kind} bytes": size for kind, size in files.sizes.items()},
         **{f"difference, {runtime}": gap for runtime, gap in files.parity.items()}}
        for name, files in value.parts.items()
    ]  # fmt: skip
    return {"details": rows}


@fields_of.register(PartsQuantize)
def _of_quantize(value: PartsQuantize) -> dict[str, Any]:
    kept = [
        f"{name} on {runtime}"
        for runtime, whole in value.runtimes.items()
        for name, p in whole.parts.items()
        if p.chosen
    ]
    rejected = not kept or not all(whole.holds for whole in value.runtimes.values())
    words = "; ".join(f"{runtime}: {whole.reason}" for runtime, whole in value.runtimes.items())
    return {
        "outcome": "rejected" if rejected else "applied",
        "reason": f"in INT8: {', '.join(kept) or 'none'}; of the whole on selection, {words}",
        "details": value.rows,
    }
