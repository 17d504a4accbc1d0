"""The quantize stage: INT8 that holds the recipe's gates, for each runtime on its own executable."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.quantize.acceptance import Limit
from rsedge.compress.quantize.int8 import Hooks, Quantized, QuantizeRecord, to_int8
from rsedge.compress.quantize.ptq import check_calibration, saturation
from rsedge.compress.quantize.qat import QatRecord, QatSettings, edge_layers, qat
from rsedge.compress.quantize.search import M, SearchSettings, Trial
from rsedge.data.errors import GateFailed
from rsedge.export.parity import compare, run_session
from rsedge.export.targets.openvino import save_openvino
from rsedge.recipe.schema import QuantizeSection, Recipe
from rsedge.results.records import Quantize, TypedOnnx
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_session
from rsedge.stages.artefacts import sample_tiles, tensorrt_settings, typed_record
from rsedge.stages.context import RunContext
from rsedge.stages.int8_runtimes import Int8Runtime, LiteRtInt8, OnnxRuntimeInt8, OpenVinoInt8, TensorRtInt8, scratch
from rsedge.stages.training import batch_loss

AUTO_SHARE, AUTO_LEAST, AUTO_MOST = 0.1, 50, 200
"""``qat: {steps: auto}``: a tenth of the distillation's steps, within these."""


def quantize_stage(context: StageContext, ctx: RunContext) -> Quantize:
    """Writes ``student-int8`` (``.xml``, ``.onnx``, ``.tflite``) and ``<target>/model.onnx``, as the INT8 targets ask for them.

    What cannot be mended is delivered with outcome ``rejected`` and the figures of all that was tried: the gates decide.

    Raises:
        RequestError: unusable calibration.
        GateFailed: nothing could quantize the student at all for some target.
    """
    net = ctx.student(ctx.shipped)
    delivered: list[Delivered] = []
    with scratch(context.folder) as folder:
        for number, (runtime, targets) in enumerate(int8_groups(ctx.recipe)):
            delivered.append(DELIVER[runtime](context, ctx, net, targets, folder / f"{runtime}-{number}"))
    named = len(delivered) > 1
    records = {name: one.record for one in delivered for name in one.targets}
    details = [{"target": ", ".join(d.targets), **r} if named else r for d in delivered for r in _rows(d.record)]
    reasons = [f"{', '.join(d.targets)}: {d.record.reason}" if named else d.record.reason for d in delivered]
    first = delivered[0].record
    assert first.found is not None
    return Quantize(
        outcome="rejected" if any(r.outcome == "rejected" for r in records.values()) else first.outcome,
        reason="; ".join(reasons), details=details, records=records,
        before={"score": first.reference.score, **first.reference.gates, "size_bytes": _f32_bytes(ctx)},
        after={"score": first.found.score, **first.found.gates, "size_bytes": delivered[0].size_bytes},
        parity={n: gap for d in delivered for n, gap in d.parity.items()},
        tensorrt={n: typed for d in delivered for n, typed in d.typed.items()},
    )  # fmt: skip


def int8_groups(recipe: Recipe) -> list[tuple[str, list[Target]]]:
    """INT8 targets by runtime; those that may share one file stand together, OpenVINO's first."""
    groups: dict[Any, list[Target]] = {}
    for target in (t for t in recipe.parsed_targets if t.precision == "int8"):
        key: Any = (target.runtime,)
        if target.runtime == "tensorrt":
            key += (tensorrt_settings(target), tuple(g for g in recipe.gates if g.target in (None, target.name)))
        groups.setdefault(key, []).append(target)
    return sorted(((t[0].runtime, t) for t in groups.values()), key=lambda group: group[0] != "openvino")


@dataclass(frozen=True)
class Delivered:
    """What the targets of one group got: the search's record, the size of the file, and how it differs from f32."""

    targets: tuple[str, ...]
    record: QuantizeRecord
    size_bytes: int
    parity: dict[str, Any] = field(default_factory=dict)
    typed: dict[str, TypedOnnx] = field(default_factory=dict)


def _openvino(context: StageContext, ctx: RunContext, net: nn.Module, targets: list[Target], folder: Path) -> Delivered:
    made, model = _searched(OpenVinoInt8(ctx, targets, folder), net, ctx)
    record = made.record.model_copy(update={"saturation": saturation(model, list(ctx.calibration))})
    xml = context.folder / "student-int8.xml"
    written = save_openvino(model, xml, ctx.spec, ctx.classes)
    gap = _gap(ctx.folders["export"] / "student-f32.xml", xml, ctx)
    names = _names(targets)
    return Delivered(names, record, written.size_bytes, dict.fromkeys(names, gap))


def _onnxruntime(
    context: StageContext, ctx: RunContext, net: nn.Module, targets: list[Target], folder: Path
) -> Delivered:
    runtime = OnnxRuntimeInt8(ctx, targets, folder)
    made, model = _searched(runtime, net, ctx)
    path = context.folder / "student-int8.onnx"
    shutil.copyfile(model.runs, path)
    names = _names(targets)
    gap = _gap(runtime.source(made.net), path, ctx, "onnxruntime")
    return Delivered(names, made.record, path.stat().st_size, dict.fromkeys(names, gap))


def _litert(context: StageContext, ctx: RunContext, net: nn.Module, targets: list[Target], folder: Path) -> Delivered:
    runtime = LiteRtInt8(ctx, targets, folder)
    made, model = _searched(runtime, net, ctx)
    path = context.folder / "student-int8.tflite"
    shutil.copyfile(model, path)
    names = _names(targets)
    gap = _gap(runtime.source(made.net), path, ctx, "litert")
    return Delivered(names, made.record, path.stat().st_size, dict.fromkeys(names, gap))


def _tensorrt(context: StageContext, ctx: RunContext, net: nn.Module, targets: list[Target], folder: Path) -> Delivered:
    runtime = TensorRtInt8(ctx, targets, folder)
    made, model = _searched(runtime, net, ctx)
    source = runtime.source(made.net)
    typed = {}
    for target in targets:
        path = context.folder / target.name / "model.onnx"
        typed[target.name] = typed_record(model.quantized, path, target, tensorrt_settings(target)[0], source, ctx)
    return Delivered(_names(targets), made.record, model.runs.stat().st_size, typed=typed)


DELIVER = {"openvino": _openvino, "onnxruntime": _onnxruntime, "tensorrt": _tensorrt, "litert": _litert}
"""How the INT8 file of a runtime is made."""


def _names(targets: list[Target]) -> tuple[str, ...]:
    return tuple(t.name for t in targets)


def _section(ctx: RunContext) -> QuantizeSection:
    section = ctx.recipe.quantize
    assert section is not None
    return section


def _searched(runtime: Int8Runtime[M], net: nn.Module, ctx: RunContext) -> tuple[Quantized[M], M]:
    """What the search found, and its model.

    Raises:
        GateFailed: it has none; the record says why.
    """
    section = _section(ctx)
    limit = Limit(runtime.reference(net), section.max_drop)
    settings = SearchSettings(**section.model_dump(exclude={"max_drop", "qat"}))

    def train(trial: Trial) -> tuple[nn.Module, QatRecord]:
        return _trained(net, trial, runtime, limit, ctx)

    hooks = Hooks(
        train=train if qat_steps(ctx.recipe) else None,
        on_trial=lambda what, done, total, trial: _told(ctx, f"{what}, {runtime.name}", done, total, trial),
        say=lambda text: ctx.reporter.note(f"  quantize, {runtime.name}: {text}"),
    )
    _, record = check_calibration(list(ctx.calibration))
    draws = [list(tiles) for tiles in ctx.calibration_draws]
    made = to_int8(
        net, runtime, list(ctx.calibration), runtime.planned(net), limit, settings, record, runtime.name, hooks, draws
    )
    if made.model is None or made.record.found is None:
        raise GateFailed(f"quantize for {', '.join(_names(list(runtime.targets)))}: {made.record.reason}")
    return made, made.model


def qat_steps(recipe: Recipe) -> int:
    """Steps of training under rounding; ``auto`` is a part of the distillation's, none where nothing was distilled."""
    section = recipe.quantize
    assert section is not None
    if section.qat.steps != "auto":
        return section.qat.steps
    steps = recipe.distill.steps
    return 0 if section.weights_only or not steps else min(AUTO_MOST, max(AUTO_LEAST, round(AUTO_SHARE * steps)))


def _trained(
    net: nn.Module, trial: Trial, runtime: Int8Runtime[M], limit: Limit, ctx: RunContext
) -> tuple[nn.Module, QatRecord]:
    """Trains on the grid of the runtime, with the settings of the best trial."""
    x = ctx.spec.normalise(ctx.calibration)
    batches = [torch.from_numpy(x[i : i + 8]) for i in range(0, len(x), 8)]
    chosen, section = trial.settings, _section(ctx)
    steps = qat_steps(ctx.recipe)
    settings = QatSettings(
        steps=steps, lr=section.qat.lr, score_every=min(50, steps), weight_bits=8 if chosen.overflow == "disable" else 7,
        activations=runtime.grid(chosen), float_layers=edge_layers(net, batches[0][:1], chosen.float_layers),
        seed=ctx.recipe.seed,
    )  # fmt: skip
    tiles = list(ctx.calibration)

    def accept(module: nn.Module) -> Any:
        ground = runtime(module)
        return ground.accept(ground.make(tiles, chosen))

    return qat(
        net, batches, lambda module, step: batch_loss(module, step, ctx), accept, limit, settings,
        lambda step, total, point: ctx.reporter.note(f"  qat {step}/{total}: score {point.score:.4f}"),
    )  # fmt: skip


def _told(ctx: RunContext, what: str, done: int, total: int, trial: Trial) -> None:
    ctx.reporter.note(f"  {what} {done}/{total}: {trial.settings.label()}: {trial.outcome} ({trial.reason})")


def _rows(record: QuantizeRecord) -> list[dict[str, Any]]:
    """One row for every model that was tried, in the order of the steps."""
    rows = [_row(t, t.settings.label()) for t in record.trials]
    if record.qat is not None:
        rows += [{"settings": f"trained under rounding, {p.step} steps", "outcome": "passed" if p.passed else "missed",
                  "score": p.score, "drop": record.reference.score - p.score, "latency_ms": None, "size_bytes": None,
                  "reason": record.qat.reason if p.step == record.qat.best else ""} for p in record.qat.points]  # fmt: skip
    if record.reversion is not None:
        rows += [_row(t, t.settings.label()) for t in record.reversion.trials]
    return rows


def _row(trial: Trial, label: str) -> dict[str, Any]:
    gates: Mapping[str, float] = {} if trial.found is None else trial.found.gates
    return {
        "settings": label, "outcome": trial.outcome, "score": trial.score, "drop": trial.drop, **gates,
        "latency_ms": trial.latency_ms, "size_bytes": trial.size_bytes, "reason": trial.reason,
    }  # fmt: skip


def _f32_bytes(ctx: RunContext) -> int:
    xml = ctx.folders["export"] / "student-f32.xml"
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size


def _gap(reference: Path, candidate: Path, ctx: RunContext, runtime: str = "openvino") -> dict[str, Any]:
    """How the INT8 executable's logits differ from the f32 one's on the same tiles."""
    samples = sample_tiles(ctx)
    outputs = []
    for path, precision in ((reference, "f32"), (candidate, "int8")):
        with contextlib.closing(open_session(path, runtime, precision=precision, threads=ctx.threads)) as session:
            outputs.append(run_session(session, samples))
    return vars(compare(outputs[0], outputs[1], ctx.task.output == "tokens")).copy()
