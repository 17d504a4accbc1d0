"""The report: what the stages found as one record, with the gates applied, as ``report.json`` and ``report.html``."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from rsedge import __version__
from rsedge.data.metric_table import step_scores
from rsedge.devices.cpu import detect_cpu
from rsedge.devices.measure import Measurement
from rsedge.preflight import measured_here
from rsedge.recipe import Recipe
from rsedge.recipe_data import DataSection
from rsedge.reports.assets import ReportAssets
from rsedge.reports.html import write_html
from rsedge.reports.schema import (
    BaselineRecord,
    DataRecord,
    Environment,
    Interval,
    LayerProfile,
    Report,
    SplitRecord,
    StageRecord,
    TargetRecord,
    TeacherRecord,
    save_report,
)
from rsedge.run_folder import RunFolder
from rsedge.runtimes.manifest import Target
from rsedge.stage import StageResult, tool_versions
from rsedge.stages_budget import budgets
from rsedge.stages_captions import speaks
from rsedge.stages_judge import evidence_of, measurements, stored_verdicts
from rsedge.stages_pictures import pictures
from rsedge.stages_train import Workshop

COLOURS = {"clear": "#4c8c4a", "cloud": "#f2f2f2", "shadow": "#3b3b6d"}
Results = Mapping[str, StageResult]


def write_report(run: RunFolder, recipe: Recipe, shop: Workshop, results: Results, seconds: float) -> Report:
    """Writes both files and returns the record."""
    report = build_report(recipe, shop, results, seconds)
    save_report(report, run.report_json)
    write_html(report, run.report_html, report_assets(shop, results))
    return report


def build_report(recipe: Recipe, shop: Workshop, results: Results, seconds: float) -> Report:
    """The record, gates included."""
    verify = results["verify"].value
    measured = measurements(results)
    data = results["data"].value
    splits = {n: SplitRecord.model_validate(s) for n, s in data["splits"].items()}
    scenes = {n: {k: v for k, v in s.items() if k != "split_sha256"} for n, s in data["scenes"].items()}
    found, without = budgets(recipe, shop, results)
    return Report(
        name=recipe.name,
        rsedge_version=__version__,
        classes=list(shop.classes) if shop.task.kind != "embedding" else [f"{len(shop.classes)} outputs"],
        class_colours={n: c for n, c in COLOURS.items() if n in shop.classes},
        teacher=_teacher(recipe, shop, results, measured),
        stages=_stages(recipe, shop, results),
        targets=[_target(recipe, shop, t, results, measured) for t in recipe.parsed_targets],
        baselines=_baselines(results, measured),
        environment=environment(shop.threads),
        data=DataRecord.model_validate(
            {
                "manifest_sha256": data["manifest_sha256"],
                "splits": splits,
                "scenes": scenes,
                "blocks": data["blocks"],
                "bands": data.get("bands", []),
            }
        ),
        seconds=seconds,
        strict=recipe.strict,
        notes=[*_notes(recipe, shop, results), *without],
        budgets=found,
        layers=[LayerProfile.model_validate(p) for p in verify["layers"]],
    )


def environment(threads: int) -> Environment:
    """This machine and the tools here."""
    cpu = detect_cpu()
    return Environment(
        cpu=cpu.model, instruction_sets=tuple(cpu.isa), cores=os.cpu_count(), threads=threads,
        python=platform.python_version(), platform=platform.platform(), versions=tool_versions(),
    )  # fmt: skip


def _teacher(recipe: Recipe, shop: Workshop, results: Results, measured: Mapping[str, Measurement]) -> TeacherRecord:
    value, spec = results["teacher"].value, shop.teacher.spec
    base = measured.get("teacher-openvino-f32")
    return TeacherRecord(
        name=recipe.teacher.name,
        params=value["params"],
        macs=value["macs"],
        size_bytes=value["sizes"]["f32"],
        latency_ms=base.latency_ms if base else None,
        metrics=_teacher_metrics(results),
        source=spec.source,
        licence=spec.licence,
    )


def _teacher_metrics(results: Results) -> dict[str, Any]:
    found: dict[str, Any] = results["teacher"].value["metrics"]["f32"]
    return found | results["captions"].value["teacher"]["metrics"] if "captions" in results else found


def _baselines(results: Results, measured: Mapping[str, Measurement]) -> list[BaselineRecord]:
    value = results["teacher"].value
    out = []
    for precision in value["sizes"]:
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
                    size_bytes=value["sizes"][precision],
                    peak_rss_bytes=m.peak_rss_bytes,
                    metrics=value["metrics"][precision],
                    agreement=value["agreement"][precision],
                    measurement=m,
                    reason="the teacher as it is" if precision == "f32" else "the teacher by plain NNCF",
                )
            )
    return out


def _target(
    recipe: Recipe, shop: Workshop, target: Target, results: Results, measured: Mapping[str, Measurement]
) -> TargetRecord:
    found = results["verify"].value["targets"][target.name]
    m = measured.get(target.name)
    student = results.get("prune") or results["distill"]
    record: dict[str, Any] = {
        "name": target.name, "runtime": target.runtime, "device": target.device, "precision": target.precision,
        "size_bytes": found["size_bytes"], "metrics": dict(found["metrics"]), "agreement": found["agreement"],
        "parity": _parity(target, results), "params": _figures(student)["params"], "macs": _figures(student)["macs"],
        "bundle": f"bundles/{target.name}",
    }  # fmt: skip
    if m is not None:
        record |= {"provenance": "measured", "latency_ms": m.latency_ms, "throughput_per_s": m.throughput_per_s,
                   "peak_rss_bytes": m.peak_rss_bytes, "measurement": m}  # fmt: skip
    elif found.get("interval"):
        record |= {"provenance": "predicted", "interval": Interval(**found["interval"])}
    else:
        record |= {"provenance": "unavailable"}
    if m is None:
        missing = found.get("unavailable")
        record["reason"] = f"numerics: {found['numerics']}" + (f"; latency: {missing}" if missing else "")
    if "captions" in results:
        record["metrics"] |= results["captions"].value["targets"][target.name]["metrics"]
    if "crossval" in results:
        pooled = results["crossval"].value["metrics"]
        record["metrics"] |= _crossval(pooled.get("int8" if target.precision == "int8" else "f32", {}))
    record["gates"], record["evidence"] = stored_verdicts(results)[target.name].gates, evidence_of(target, results)
    return TargetRecord.model_validate(record)


def _crossval(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_crossval": metrics[name] for name in step_scores() if name in metrics}


def _parity(target: Target, results: Results) -> dict[str, Any] | None:
    made = "quantize" if target.precision == "int8" else "export"
    value = results[made].value
    if target.runtime == "tensorrt":
        typed = value["tensorrt"][target.name]
        return {"typed_onnx": typed["parity"], "compile_gate": typed["compile_gate"]}
    if target.name in value.get("myriad", {}):
        made_for_vpu = value["myriad"][target.name]
        return {k: made_for_vpu[k] for k in ("weights_fp16", "activations_fp16")}
    parity: dict[str, Any] = value["parity"]
    return parity


def _figures(result: StageResult) -> dict[str, Any]:
    if result.name == "prune":
        after = result.value["record"]["after"]
        return {"params": after["params"], "macs": after["macs"]}
    return {"params": result.value["params"], "macs": result.value["macs"]}


def _stages(recipe: Recipe, shop: Workshop, results: Results) -> list[StageRecord]:
    order = ("data", "fit", "probe", "language", "teacher", "student", "distill", "prune", "export", "quantize", "crossval",
             "verify", "captions", "bundle")  # fmt: skip
    return [_stage(results[n], results) for n in order if n in results]


def _stage(result: StageResult, results: Results) -> StageRecord:
    made = _stage_record(result, results)
    return made.model_copy(update={"after": {**made.after, **_step_after(result.name, results)}})


def _step_after(name: str, results: Results) -> dict[str, Any]:
    """Accuracy, size and latency (f32 for training steps, INT8 for quantize) as verified on OpenVINO, interleaved."""
    verify = results["verify"].value
    if name == "quantize":
        int8 = next((t for t in verify["targets"] if t == "openvino-cpu-int8"), None)
        if int8 is None:
            return {}
        found, measured = verify["targets"][int8], verify["measurements"].get(int8)
        figures = {k: found["metrics"][k] for k in step_scores() if k in found["metrics"]}
        figures |= {"agreement": found["agreement"], "size_bytes": found["size_bytes"]}
    else:
        figures, measured = verify["steps"].get(name, {}), verify["measurements"].get(f"step-{name}")
    return figures | ({"latency_ms": measured["latency_ms"]["p50"], "provenance": "measured"} if measured else {})


def _stage_record(result: StageResult, results: Results) -> StageRecord:
    record = StageRecord(name=result.name, outcome="applied", seconds=result.seconds)
    value = result.value
    if result.name == "distill":
        teacher = results["teacher"].value
        run = value["record"]
        early = ", stopped early" if run["stopped_early"] else ""
        return record.model_copy(
            update={
                "before": {"params": teacher["params"], "macs": teacher["macs"]},
                "after": {"params": value["params"], "macs": value["macs"], **value["selection"]},
                "reason": f"best at step {run['best_step']} of {run['steps']}{early}; autocast {run['autocast']}",
            }
        )
    if result.name == "fit":
        run = value["record"]
        text = f"{value['objects']} objects; best at step {run['best_step']} of {run['steps']}, AP50 {run['best_score']:.3f} on "
        return record.model_copy(update={"reason": f"{text}{value['judged']} samples of selection"})
    if result.name == "probe":
        chosen = ", ".join(f"{p:g}" for p in value["penalties"])
        text = f"linear head on {value['features']} features of {value['samples']} training samples; penalty {chosen}"
        return record.model_copy(update={"reason": text})
    if result.name == "prune":
        run = value["record"]
        return record.model_copy(
            update={
                "outcome": run["outcome"],
                "reason": run["reason"],
                "before": _flat(run["before"]),
                "after": _flat(run["after"]),
                "details": [_prune_row(s) for s in run["steps"]],
            }
        )
    if result.name == "quantize":
        return record.model_copy(update={k: value[k] for k in ("outcome", "reason", "before", "after", "details")})
    if result.name == "student":
        return record.model_copy(update={"reason": value["reason"], "details": value["candidates"]})
    if result.name == "crossval":
        found = value["metrics"]
        rows = [{"network": name, **{k: v for k, v in m.items() if isinstance(v, float)}} for name, m in found.items()]
        return record.model_copy(update={"reason": f"{value['folds']} folds of whole groups", "details": rows})
    if result.name == "language":
        return record.model_copy(update=_language_row(value))
    if result.name == "captions":
        rows = [{"target": name, **found["metrics"]} for name, found in value["targets"].items()]
        return record.model_copy(update={"reason": "against the teacher's captions in torch", "details": rows})
    if result.name == "export":
        return record.model_copy(update={"after": {f"{k}_bytes": v for k, v in value["sizes"].items()}})
    return record


def _language_row(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reason": f"weights in {value['record']['weights']}; agreement: of the language model alone, given the teacher's image "
        "tokens",
        "before": {"params": value["params"], "size_bytes": value["bytes"]["f32"]},
        "after": {"size_bytes": value["bytes"]["stored"], **value["alone"]},
    }


def _flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    latency = figures["latency"]
    return {"params": figures["params"], "macs": figures["macs"], "latency_ms": latency["ms"],
            "provenance": latency["provenance"], "score": figures["score"]}  # fmt: skip


def _prune_row(step: Mapping[str, Any]) -> dict[str, Any]:
    after = _flat(step["after"]) if step["after"] else {}
    return {"step": step["step"], "outcome": step["outcome"], **after, "reason": step["reason"]}


def _notes(recipe: Recipe, shop: Workshop, results: Results) -> list[str]:
    notes = list(results["data"].value.get("warnings", []))
    splits = results["data"].value["splits"]
    if isinstance(recipe.data, DataSection) and recipe.data.test.simulated_clouds:
        notes.append("Test labels are the masks of simulated clouds over a real scene, not hand-drawn ones.")
    if not splits["test"]["labelled"]:
        notes.append("The test set has no labels: accuracy is agreement with the teacher only.")
    notes += [split["note"] for split in splits.values() if split["note"]]
    if recipe.captions:
        notes += _caption_notes(recipe)
    if any(not measured_here(t) for t in recipe.parsed_targets):
        notes.append("Latencies of devices that are not here are predicted intervals; their accuracy is of the same "
                     "model file on this machine's CPU.")  # fmt: skip
    reused = [r.name for r in results.values() if r.reused]
    if reused:
        notes.append(f"Reused from an earlier run with the same inputs: {', '.join(reused)}.")
    return notes


def _caption_notes(recipe: Recipe) -> list[str]:
    silent = [t.name for t in recipe.parsed_targets if not speaks(t)]
    notes = [
        "Size, latency and memory are of the vision tower with its projector; the language model's are in its own rows."
    ]
    if silent:
        notes.append(
            f"{', '.join(silent)}: the bundle holds the vision tower alone, as nothing here runs the language model there; its "
            "captions were made with the language model on this machine's CPU."
        )
    return notes


def report_assets(shop: Workshop, results: Results) -> ReportAssets:
    """What the page shows beside the record: pictures, single latencies, training curves."""
    verify = results["verify"]
    name = _shown_target(shop)
    samples = {n: m["samples_ms"] for n, m in verify.value["measurements"].items()}
    history = {s: results[s].value["record"]["history"] for s in ("fit", "distill") if s in results}
    return ReportAssets(**pictures(shop, results, name), latency_samples=samples, history=history, student_name=name)


def _shown_target(shop: Workshop) -> str:
    targets = shop.recipe.parsed_targets
    here = [t for t in targets if measured_here(t)]
    return next((t.name for t in here if t.precision == "int8"), (here or list(targets))[0].name)
