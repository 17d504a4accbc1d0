"""What the report says of each stage: outcome, reason, figures before and after, and a table of what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from rsedge.cache.stage import Results, StageResult, StageValue
from rsedge.compress.prune.pruning import LayerMs, NetFigures, PruneStep
from rsedge.compress.quantize.int8 import QuantizeRecord
from rsedge.compress.replace.replacing import ReplaceTrial
from rsedge.data.files import read_json
from rsedge.data.metrics.statistics import Estimate
from rsedge.data.metrics.table import step_scores, title_of
from rsedge.recipe.steps import TRAINING
from rsedge.reports.schema import LayerDamage, LayerWidth, StageRecord
from rsedge.results import records
from rsedge.results.importance import BandCost, BandsOfStudent, BandsOfTeacher
from rsedge.stages.outputs import F32_ON_OPENVINO

INT8_ON_OPENVINO = "openvino-cpu-int8"
SLOWEST = 3
"""Layers that the report names as those that keep the time."""


def stage_rows(results: Results) -> list[StageRecord]:
    """One row per stage, in the order they ran."""
    return [_row(result, results) for result in results.values()]


def _row(result: StageResult[Any], results: Results) -> StageRecord:
    fields = {"outcome": "applied"} | fields_of(result.value, results)
    verify, before = results.of(records.Verify), fields.pop("before", {})
    trained = _trained(results)
    after = fields.pop("after", {}) | verified(result.name, verify, trained)
    if result.name in trained[1:]:
        # Pruning's own latencies are of `latency_on`: another clock than that of the steps.
        earlier = trained[trained.index(result.name) - 1]
        before |= _measured(clock_of(earlier, verify, trained), verify)
        fields["widths"] = layer_widths(results[earlier].folder, result.folder) if earlier in results else []
    more = {**ran(result), "before": before, "after": after}
    return StageRecord.model_validate(fields | more)


def ran(result: StageResult[Any]) -> dict[str, Any]:
    """Fields of :class:`StageRecord` that say how a stage ran."""
    return {"name": result.name, "seconds": result.seconds, "memory_bytes": result.memory_bytes}


def layer_widths(before: Path, after: Path) -> list[LayerWidth]:
    """Outputs of the layers with weights of two stages' students, norms left out; empty where they are the same, or not kept."""
    files = [folder / "model" / "structure.json" for folder in (before, after)]
    if not all(file.is_file() for file in files):
        return []
    was, made = (
        {name: own["out"] for name, own in read_json(file)["widths"].items() if "in" in own and "out" in own}
        for file in files
    )
    found = [
        LayerWidth(layer=name, before=was.get(name), after=made.get(name)) for name in dict.fromkeys([*was, *made])
    ]
    return found if was != made else []


def _trained(results: Results) -> list[str]:
    """The stages that made or changed the student, in their order."""
    return [stage for stage in TRAINING if stage == records.Distill.stage or stage in results]


def clock_of(stage: str, verify: records.Verify, trained: Sequence[str]) -> str:
    """Whose measurement times the student after a stage: the last one's file is the f32 target's, and is timed once."""
    last = stage == trained[-1] and F32_ON_OPENVINO in verify.measurements
    return F32_ON_OPENVINO if last else f"step-{stage}"


def verified(name: str, verify: records.Verify, trained: Sequence[str]) -> dict[str, Any]:
    """Accuracy, size and latency (f32 for training steps, INT8 for quantize) as verified on OpenVINO, interleaved."""
    if name == records.Quantize.stage:
        found, clocked = verify.targets.get(INT8_ON_OPENVINO), INT8_ON_OPENVINO
        if found is None:
            return {}
        figures = {k: found.metrics[k] for k in step_scores() if k in found.metrics}
        figures |= {"agreement": found.agreement, "size_bytes": found.size_bytes}
    else:
        figures, clocked = verify.steps.get(name, {}), clock_of(name, verify, trained)
    return figures | _measured(clocked, verify)


def _measured(name: str, verify: records.Verify) -> dict[str, Any]:
    found = verify.measurements.get(name)
    return {"latency_ms": found.latency_ms.p50, "provenance": "measured"} if found else {}


@singledispatch
def fields_of(value: StageValue, results: Results) -> dict[str, Any]:
    """Fields of :class:`StageRecord` that only this kind of stage can tell; nothing of the others."""
    return {}


@fields_of.register(records.Distill)
def _distill(value: records.Distill, results: Results) -> dict[str, Any]:
    teacher, run = results.of(records.Teacher), value.record
    early = ", stopped early" if run.stopped_early else ""
    return {
        "before": {"params": teacher.params, "macs": teacher.macs},
        "after": {"params": value.params, "macs": value.macs, **value.selection},
        "reason": f"best at step {run.best_step} of {run.steps}{early}; autocast {run.autocast}{_by(run.processes)}",
    }


def _by(processes: Sequence[int]) -> str:
    """How many processes trained, where that was not one alone."""
    return "" if set(processes) <= {1} else f"; trained by {', then '.join(map(str, processes))} processes"


@fields_of.register(records.Fit)
def _fit(value: records.Fit, results: Results) -> dict[str, Any]:
    run = value.record
    text = f"{value.objects} objects; best at step {run.best_step} of {run.steps}, AP50 {run.best_score:.3f} on "
    return {"reason": f"{text}{value.judged} selection samples"}


@fields_of.register(records.Probe)
def _probe(value: records.Probe, results: Results) -> dict[str, Any]:
    chosen = ", ".join(f"{p:g}" for p in value.penalties)
    text = f"linear head on {value.features} features of {value.samples} training samples; penalty {chosen}"
    return {"reason": text}


@fields_of.register(records.Prune)
def _prune(value: records.Prune, results: Results) -> dict[str, Any]:
    run = value.record
    return {
        "outcome": run.outcome,
        "reason": "; ".join(filter(None, (run.reason, _where_the_time_is(run.layers)))),
        "before": _figures(run.before),
        "after": _figures(run.after),
        "details": [_prune_step(step) for step in run.steps],
    }


def _where_the_time_is(layers: Mapping[str, LayerMs]) -> str:
    """The layers that take most after pruning, by the table it went by."""
    left = {name: ms for name, ms in layers.items() if ms.after > 0}
    most, whole = sorted(left, key=lambda name: -left[name].after)[:SLOWEST], sum(ms.after for ms in left.values())
    each = ", ".join(_layer_time(name, left[name], whole) for name in most)
    return f"most of the time is left in {each}" if each else ""


def _layer_time(name: str, ms: LayerMs, whole: float) -> str:
    return f"{name} {ms.after / whole:.0%} ({ms.provenance} {ms.before:.3g} to {ms.after:.3g} ms)"


def _figures(figures: NetFigures) -> dict[str, Any]:
    return {"params": figures.params, "macs": figures.macs, "latency_ms": figures.latency.ms,
            "provenance": figures.latency.provenance, "score": figures.score}  # fmt: skip


def _prune_step(step: PruneStep) -> records.Row:
    after = _figures(step.after) if step.after else {}
    gone = f"removed whole: {', '.join(step.blocks)}" if step.blocks else ""
    return {"step": step.step, "outcome": step.outcome, **after, "reason": "; ".join(filter(None, (step.reason, gone)))}


@fields_of.register(records.Replace)
def _replace(value: records.Replace, results: Results) -> dict[str, Any]:
    run = value.record
    return {
        "outcome": run.outcome,
        "reason": run.reason,
        "before": {"score": run.before},
        "after": {"params": value.params, "macs": value.macs, "score": run.after},
        "details": [row for trial in run.trials for row in _replaced(trial)],
    }


def _replaced(trial: ReplaceTrial) -> list[records.Row]:
    """A row for each target it was timed on."""
    same = {"outcome": trial.outcome, "score": trial.score, "recovered": trial.recovered, "reason": trial.reason}
    return [
        {"tried": trial.what, "target": target, "time_over_before": found.value, "low": found.low, "high": found.high,
         "provenance": found.provenance, **same}
        for target, found in trial.latency.items()
    ]  # fmt: skip


@fields_of.register(records.Quantize)
def _quantize(value: records.Quantize, results: Results) -> dict[str, Any]:
    return {"outcome": value.outcome, "reason": value.reason, "before": value.before, "after": value.after,
            "details": value.details, "damage": _damage(value.records)}  # fmt: skip


def _damage(found: Mapping[str, QuantizeRecord]) -> list[LayerDamage]:
    """Of every INT8 file whose layers were judged alone; targets of one file have one record."""
    own: list[tuple[QuantizeRecord, list[str]]] = []
    for target, record in found.items():
        names = next((names for one, names in own if one == record), None)
        if names is None:
            own.append((record, names := []))
        names.append(target)
    return [
        LayerDamage(
            layer=part.layers[0],
            layers=len(part.layers),
            damage=part.damage,
            in_float=record.chosen is not None and set(part.layers) <= set(record.chosen.float_names),
            target=", ".join(names) if len(own) > 1 else None,
        )
        for record, names in own
        for part in (record.sensitivity.parts if record.sensitivity else ())
    ]


@fields_of.register(records.Student)
def _student(value: records.Student, results: Results) -> dict[str, Any]:
    return {"reason": value.reason, "details": [row.model_dump() for row in value.candidates]}


@fields_of.register(BandsOfStudent)
def _importance(value: BandsOfStudent, results: Results) -> dict[str, Any]:
    return {"reason": _looked_at(value), "details": [_band_row(b, value.metric) for b in value.bands]}


@fields_of.register(BandsOfTeacher)
def _bands(value: BandsOfTeacher, results: Results) -> dict[str, Any]:
    removed = [
        {"band": f"without {r.band} too", "bands_left": r.left, **_loss(r.loss, value.metric), "agreement": r.agreement}
        for r in value.removals
    ]
    kept = f"; the student looks at {', '.join(value.kept)}" if value.kept else ""
    rows = [*(_band_row(b, value.metric) for b in value.bands), *removed]
    return {"reason": f"{_looked_at(value)}{kept}", "details": rows}


def _looked_at(value: BandsOfStudent | BandsOfTeacher) -> str:
    return f"loss of {title_of(value.metric)} without each band (at its mean), on {value.inputs} selection inputs"


def _band_row(band: BandCost, metric: str) -> records.Row:
    row: records.Row = {"band": band.band, **_loss(band.loss, metric), "agreement": band.agreement.value}
    if band.shapley is not None:
        low, high = band.shapley.interval or (None, None)
        row |= {"shapley": band.shapley.value, "shapley_low": low, "shapley_high": high, "orders_se": band.orders_se}
    return row


def _loss(found: Estimate, metric: str) -> records.Row:
    low, high = found.interval or (None, None)
    return {f"{metric}_loss": found.value, f"{metric}_loss_low": low, f"{metric}_loss_high": high}


@fields_of.register(records.Crossval)
def _crossval(value: records.Crossval, results: Results) -> dict[str, Any]:
    rows = [
        {"network": name, **{k: v for k, v in metrics.items() if isinstance(v, float)}}
        for name, metrics in value.metrics.items()
    ]
    return {"reason": f"{value.folds} folds of whole groups", "details": rows}


@fields_of.register(records.Language)
def _language(value: records.Language, results: Results) -> dict[str, Any]:
    return {
        "reason": f"weights in {value.record.weights}; agreement: of the language model alone, given the teacher's image tokens",
        "before": {"params": value.params, "size_bytes": value.bytes.f32},
        "after": {"size_bytes": value.bytes.stored, **value.alone.model_dump()},
    }


@fields_of.register(records.Captions)
def _captions(value: records.Captions, results: Results) -> dict[str, Any]:
    rows = [{"target": name, **found.metrics} for name, found in value.targets.items()]
    return {"reason": "against the teacher's captions in torch", "details": rows}


@fields_of.register(records.Export)
def _export(value: records.Export, results: Results) -> dict[str, Any]:
    return {"after": {f"{name}_bytes": size for name, size in value.sizes.items()}}
