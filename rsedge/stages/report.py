"""The report: what the stages found as one record, with the gates applied, as ``report.json`` and ``report.html``."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results, tool_versions
from rsedge.compress.distill.training import DistillRecord
from rsedge.data.metrics.table import CROSSVAL, step_scores
from rsedge.devices.measure.protocol import Measurement, Speedup, speedup
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.recipe.checks import measured_here
from rsedge.recipe.data import DataSection
from rsedge.recipe.schema import Recipe
from rsedge.reports.assets import ReportAssets
from rsedge.reports.schema import (
    BaselineRecord,
    DataRecord,
    Environment,
    Interval,
    LayerProfile,
    Report,
    TargetRecord,
    TeacherRecord,
)
from rsedge.results import records
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.file_checks import Check
from rsedge.stages.budget import budgets
from rsedge.stages.captions import writes_captions
from rsedge.stages.context import RunContext
from rsedge.stages.disagreement import write_maps
from rsedge.stages.judge import evidence_of, network_of
from rsedge.stages.origin import origin_of, publish
from rsedge.stages.pictures import pictures
from rsedge.stages.rows import stage_rows
from rsedge.stages.soaks import soak_of
from rsedge.version import __version__

COLOURS = {"clear": "#4c8c4a", "cloud": "#f2f2f2", "shadow": "#3b3b6d"}


def write_report(run: RunFolder, recipe: Recipe, ctx: RunContext, results: Results, seconds: float) -> Report:
    """Writes its files and returns the record."""
    report = build_report(recipe, ctx, results, seconds)
    publish(run, report, report_assets(ctx, results, write_maps(run, ctx, results)))
    return report


def build_report(recipe: Recipe, ctx: RunContext, results: Results, seconds: float) -> Report:
    """The record, gates included."""
    verify = results.of(records.Verify)
    found, without = budgets(recipe, ctx, results)
    return Report(
        name=recipe.name,
        rsedge_version=__version__,
        classes=list(ctx.task.output_names),
        class_colours={n: c for n, c in COLOURS.items() if n in ctx.classes},
        teacher=_teacher(recipe, ctx, results),
        stages=stage_rows(results),
        targets=[_target(t, ctx.run, results) for t in recipe.parsed_targets],
        baselines=_baselines(results),
        environment=environment(ctx.threads),
        origin=origin_of(ctx.run, recipe, results),
        data=data_record(results.of(records.Data)),
        seconds=seconds,
        strict=recipe.strict,
        notes=[*_notes(recipe, ctx, results), *without],
        budgets=found,
        layers=[LayerProfile.model_validate(p.model_dump()) for p in verify.layers],
    )


def data_record(found: records.Data) -> DataRecord:
    """The data of a run, as a report has it."""
    origins = {name: origin.model_dump() for name, origin in found.origins.items()}
    return DataRecord.model_validate(
        {
            "manifest_sha256": found.manifest_sha256,
            "splits": {
                name: split.model_dump() | {"tiles": split.tiles if split.tiles or not split.pixels else None}
                for name, split in found.splits.items()
            },
            "scenes": {
                name: scene.model_dump(exclude={"split_sha256"}) | origins.get(name, {})
                for name, scene in found.scenes.items()
            },
            "blocks": [block.model_dump() for block in found.blocks],
            "bands": found.bands,
        }
    )


def environment(threads: int) -> Environment:
    """This machine and the tools here."""
    cpu = detect_cpu()
    return Environment(
        cpu=cpu.model, instruction_sets=tuple(cpu.isa), cores=os.cpu_count(), threads=threads,
        python=platform.python_version(), platform=platform.platform(), versions=tool_versions(),
    )  # fmt: skip


def _teacher(recipe: Recipe, ctx: RunContext, results: Results) -> TeacherRecord:
    value, spec = results.of(records.Teacher), ctx.teacher.spec
    base = results.of(records.Verify).measurements.get("teacher-openvino-f32")
    return TeacherRecord(
        name=recipe.teacher.name,
        params=value.params,
        macs=value.macs,
        size_bytes=value.sizes["f32"],
        latency_ms=base.latency_ms if base else None,
        metrics=_teacher_metrics(results),
        source=spec.source,
        licence=spec.licence,
    )


def _teacher_metrics(results: Results) -> dict[str, Any]:
    found, captions = results.of(records.Teacher).metrics["f32"], results.maybe(records.Captions)
    return found if captions is None else found | captions.teacher.metrics


def _baselines(results: Results) -> list[BaselineRecord]:
    value, measured = results.of(records.Teacher), results.of(records.Verify).measurements
    out = []
    for precision in value.sizes:
        name = f"teacher-openvino-{precision}"
        if name in measured:
            m = measured[name]
            out.append(
                BaselineRecord(
                    name=name,
                    runtime="openvino",
                    device="cpu",
                    precision=precision,
                    provenance="measured",
                    latency_ms=m.latency_ms,
                    throughput_per_s=m.throughput_per_s,
                    size_bytes=value.sizes[precision],
                    peak_rss_bytes=m.peak_rss_bytes,
                    metrics=value.metrics[precision],
                    agreement=value.agreement[precision],
                    measurement=m,
                    speedup=_over_teacher(m, measured),
                    reason="the teacher as it is" if precision == "f32" else "the teacher by plain NNCF",
                )
            )
    return out


def _over_teacher(measured: Measurement, beside: Mapping[str, Measurement]) -> Speedup | None:
    """Beside the teacher on OpenVINO f32 in the same run; None where that was not measured, or for itself."""
    teacher = beside.get("teacher-openvino-f32")
    return None if teacher is None or teacher is measured else speedup(teacher, measured)


def _target(target: Target, run: RunFolder, results: Results) -> TargetRecord:
    verify = results.of(records.Verify)
    found, m = verify.targets[target.name], verify.measurements.get(target.name)
    record: dict[str, Any] = {
        "name": target.name, "runtime": target.runtime, "device": target.device, "precision": target.precision,
        "size_bytes": found.size_bytes, "metrics": dict(found.metrics), "agreement": found.agreement,
        "parity": _parity(target, results), "bundle": f"bundles/{target.name}", "seams": found.seams, **_cost(results),
    }  # fmt: skip
    if m is not None:
        record |= {"provenance": "measured", "latency_ms": m.latency_ms, "throughput_per_s": m.throughput_per_s,
                   "peak_rss_bytes": m.peak_rss_bytes, "measurement": m,
                   "speedup": _over_teacher(m, verify.measurements)}  # fmt: skip
    elif found.interval:
        record |= {"provenance": "predicted", "interval": Interval(**found.interval.model_dump())}
    else:
        record |= {"provenance": "unavailable"}
    if m is None:
        missing = f"; latency: {found.unavailable}" if found.unavailable else ""
        record["reason"] = f"numerics: {found.numerics}{missing}"
    if captions := results.maybe(records.Captions):
        record["metrics"] |= captions.targets[target.name].metrics
    if crossval := results.maybe(records.Crossval):
        record["metrics"] |= _crossval(crossval, network_of(target))
    record["gates"] = results.of(records.Bundles).verdicts[target.name].gates
    record["evidence"] = evidence_of(target, results)
    record["soak"] = soak_of(run, target.name)
    return TargetRecord.model_validate(record)


def _crossval(found: records.Crossval, network: str) -> dict[str, Any]:
    metrics = found.metrics.get(network, {})
    over_folds = {f"{name}{CROSSVAL}": metrics[name] for name in step_scores() if name in metrics}
    return over_folds | {name: one.own.value for name, one in found.evidence.get(network, {}).items()}


def _parity(target: Target, results: Results) -> Mapping[str, Check]:
    value: records.Quantize | records.Export = (
        results.of(records.Quantize) if target.quantized else results.of(records.Export)
    )
    if target.name in value.own:
        return value.own[target.name].parity
    return value.parity if isinstance(value, records.Export) else {target.runtime: value.parity[target.name]}


def _cost(results: Results) -> dict[str, int]:
    """Parameters and MACs of the student as the last training step left it."""
    replaced, pruned = results.maybe(records.Replace), results.maybe(records.Prune)
    found = replaced or (results.of(records.Distill) if pruned is None else pruned.record.after)
    return {"params": found.params, "macs": found.macs}


def _notes(recipe: Recipe, ctx: RunContext, results: Results) -> list[str]:
    data = results.of(records.Data)
    notes = [*results.remarks]
    if recipe.student.sees_less:
        notes.append(_sees(ctx))
    if recipe.teachers:
        others = ", ".join(f"{t.name} ({t.weight:g})" for t in recipe.teachers)
        notes.append(
            f"The student learned from {recipe.teacher.name} (weight 1) and {others}; it is judged against the first."
        )
    if isinstance(recipe.data, DataSection) and recipe.data.test.simulated_clouds:
        notes.append("Test labels are the masks of simulated clouds over a real scene, not hand-drawn ones.")
    if not data.splits["test"].labelled:
        notes.append("The test set has no labels: accuracy is agreement with the teacher only.")
    if recipe.captions:
        notes += _caption_notes(recipe)
    if any(not measured_here(t) for t in recipe.parsed_targets):
        notes.append("Latencies of devices that are not here are predicted intervals; their accuracy is of the same "
                     "model file on this machine's CPU.")  # fmt: skip
    reused = [r.name for r in results.values() if r.reused]
    if reused:
        notes.append(f"Reused from an earlier run with the same inputs: {', '.join(reused)}.")
    return notes


def _sees(ctx: RunContext) -> str:
    """What the student looks at, where it is not what the teacher does."""
    assert ctx.view is not None
    teacher, dates = ctx.teacher.spec.input_spec, ctx.view.dates
    times = "" if dates is None else f" at date {', '.join(str(d + 1) for d in dates)} of {teacher.frames}"
    made = f" (made: {'; '.join(ctx.view.words)})" if ctx.view.words else ""
    return (
        f"The student looks at {', '.join(ctx.spec.band_names)}{times}{made}, the teacher at {', '.join(teacher.band_names)}; "
        "both are judged on the same ground."
    )


def _caption_notes(recipe: Recipe) -> list[str]:
    silent = [t.name for t in recipe.parsed_targets if not writes_captions(t)]
    notes = [
        "Size, latency and memory are of the vision tower with its projector; the language model's are in its own rows."
    ]
    if silent:
        notes.append(
            f"{', '.join(silent)}: the bundle holds the vision tower alone, as nothing here runs the language model there; its "
            "captions were made with the language model on this machine's CPU."
        )
    return notes


def report_assets(ctx: RunContext, results: Results, maps: Mapping[str, str] | None = None) -> ReportAssets:
    """What the page shows beside the record: pictures, single latencies, training curves, and links to ``maps`` by target."""
    name = _shown_target(ctx)
    samples = {n: measured.samples_ms for n, measured in results.of(records.Verify).measurements.items()}
    trained = (results.maybe(records.Fit), results.maybe(records.Distill))
    history = training_curves({value.stage: value.record for value in trained if value is not None})
    return ReportAssets(
        **pictures(ctx, results, name),
        latency_samples=samples,
        history=history,
        student_name=name,
        disagreement_maps=maps or {},
    )


def training_curves(found: Mapping[str, DistillRecord]) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """Losses on what taught and figures on selection, by phase."""
    learned = {name: record.history for name, record in found.items()}
    return learned | {f"{name}, on selection": record.validation for name, record in found.items()}


def _shown_target(ctx: RunContext) -> str:
    targets = ctx.recipe.parsed_targets
    here = [t for t in targets if measured_here(t)]
    return next((t.name for t in here if t.quantized), (here or list(targets))[0].name)
