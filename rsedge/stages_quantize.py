"""The quantize stage: INT8 settings searched on the actual executable, for OpenVINO, ONNX Runtime and TensorRT."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import nn

from rsedge.compress.qat import QatSettings, edge_layers, qat
from rsedge.compress.quantize import PtqSettings, quantize
from rsedge.compress.quantize_search import QuantizeRecord, SearchSettings, Trial, search_ptq
from rsedge.compress.quantize_tensorrt import quantize_onnx
from rsedge.data.errors import GateFailed
from rsedge.devices.measure import measure
from rsedge.export.graph import Deployable
from rsedge.export.onnx import export_onnx
from rsedge.export.openvino import read_openvino, save_openvino
from rsedge.export.parity import compare, run_session
from rsedge.recipe import QuantizeSection
from rsedge.runtimes.manifest import Target
from rsedge.runtimes.openvino_core import settings, shared_core
from rsedge.runtimes.session import LOGITS, VALID, open_session
from rsedge.stage import StageContext
from rsedge.stages_deploy import sample_tiles, tensorrt_settings, typed_record
from rsedge.stages_train import Workshop, batch_loss, quiet_ms
from rsedge.tasks import Inputs, Kept

LATENCY_SECONDS = 1.0


def quantize_stage(context: StageContext, shop: Workshop, student: str) -> dict[str, Any]:
    """Writes ``student-int8.xml`` and, where a target asks for it, ``student-int8.onnx`` and ``<target>/model.onnx``.

    Where no setting keeps the limit, the best one is delivered and the outcome is ``rejected``: the gates decide.

    Raises:
        RequestError: unusable calibration.
        GateFailed: no setting could quantize the student at all.
    """
    net = shop.student(student)
    model, record, reference = _search(shop)
    value: dict[str, Any] = {
        "outcome": record.outcome, "reason": record.reason, "details": [_row(t) for t in record.trials],
        "record": record.model_dump(mode="json"), "tensorrt": {}, "qat": None,
    }  # fmt: skip
    section = _section(shop)
    if record.outcome == "rejected" and section.qat.steps:
        net, model = _train(net, model, record, shop, value)
    xml = context.folder / "student-int8.xml"
    made = save_openvino(model, xml, shop.spec, shop.classes)
    value["before"] = reference | {"size_bytes": _f32_bytes(shop)}
    value["after"] = _score(model, shop) | {"size_bytes": made.size_bytes}
    value["parity"] = {"openvino": _gap(shop.folders["export"] / "student-f32.xml", xml, shop)}
    value["onnx"] = _onnx_targets(context, shop, net, value)
    return value


def _section(shop: Workshop) -> QuantizeSection:
    section = shop.recipe.quantize
    assert section is not None
    return section


def _search(shop: Workshop) -> tuple[ov.Model, QuantizeRecord, dict[str, float]]:
    section = _section(shop)
    f32 = read_openvino(shop.folders["export"] / "student-f32.onnx")
    reference = _score(f32, shop)
    settings = SearchSettings(**section.model_dump(exclude={"max_drop", "qat"}))
    chosen, record = search_ptq(
        f32, list(shop.calibration), lambda m: _score(m, shop)["score"], reference["score"], section.max_drop,
        lambda m: _latency_ms(m, shop), settings, lambda done, total, trial: _told(shop, done, total, trial),
    )  # fmt: skip
    if chosen is None:
        raise GateFailed(f"quantize: {record.reason}")
    return chosen, record, reference


def _train(
    net: nn.Module, calibrated: ov.Model, record: QuantizeRecord, shop: Workshop, value: dict[str, Any]
) -> tuple[nn.Module, ov.Model]:
    """Trains under simulated rounding where calibration alone missed the limit; keeps what came out better."""
    assert record.best is not None
    section, chosen = _section(shop), record.trials[record.best]
    x = shop.spec.normalise(shop.calibration)
    batches = [torch.from_numpy(x[i : i + 8]) for i in range(0, len(x), 8)]
    settings = QatSettings(
        steps=section.qat.steps, lr=section.qat.lr, weight_bits=8 if section.hosts == "vnni" else 7,
        activations=chosen.settings.preset, float_layers=edge_layers(net, batches[0][:1], chosen.settings.float_layers),
        seed=shop.recipe.seed,
    )  # fmt: skip
    trained, found = qat(
        net, batches, lambda module, step: batch_loss(module, step, shop),
        lambda module: _score(_quantized(module, chosen.settings, shop), shop)["score"],
        record.reference_score, section.max_drop, settings,
        lambda step, total, point: shop.reporter.note(f"  qat {step}/{total}: score {point.score:.4f}"),
    )  # fmt: skip
    value["qat"] = found.model_dump(mode="json")
    score = max(p.score for p in found.points)
    if score <= (chosen.score or 0.0):
        value["reason"] += f"; training under rounding brought nothing ({found.reason})"
        return net, calibrated
    value["outcome"] = found.outcome
    value["reason"] = f"{chosen.settings.label()}, trained under rounding: {found.reason}"
    value["details"].append(
        {"settings": f"{chosen.settings.label()}, QAT", "outcome": "passed" if found.outcome == "applied" else "missed",
         "score": score, "drop": record.reference_score - score, "latency_ms": None, "size_bytes": None,
         "reason": found.reason}
    )  # fmt: skip
    return trained, _quantized(trained, chosen.settings, shop)


def _quantized(net: nn.Module, settings: PtqSettings, shop: Workshop) -> ov.Model:
    with tempfile.TemporaryDirectory() as folder:
        graph = Deployable(net, shop.spec, shop.task.output)
        made = export_onnx(graph, shop.spec, shop.classes, Path(folder) / "net.onnx")
        return quantize(read_openvino(made.path), list(shop.calibration), settings)


def _told(shop: Workshop, done: int, total: int, trial: Trial) -> None:
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.2f} ms"
    label = trial.settings.label()
    shop.reporter.note(f"  quantize {done}/{total}: {label}: {trial.outcome} ({trial.reason}{latency})")


def compiled(model: ov.Model, shop: Workshop) -> Any:
    """A graph that takes digital numbers, ready to run on this CPU as a bundle would run it."""
    return shared_core().compile_model(model, "CPU", settings("CPU", "int8", shop.threads))


def _score(model: ov.Model, shop: Workshop) -> dict[str, float]:
    """Likeness to the teacher of a graph that takes digital numbers, on OpenVINO."""
    executable = compiled(model, shop)

    def kept(inputs: Inputs) -> Kept:
        found = (executable({0: one[None]}) for one in inputs)
        return np.stack([shop.task.keep({name: outputs[name] for name in (LOGITS, VALID)}) for outputs in found])

    return shop.likeness(kept(shop.selection.inputs), kept(shop.selection_views))


def _latency_ms(model: ov.Model, shop: Workshop) -> float:
    request = compiled(model, shop).create_infer_request()
    inputs: Any = {0: shop.selection.inputs[:1]}
    return quiet_ms(measure(request.infer, inputs, seconds=LATENCY_SECONDS, threads=shop.threads))


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "settings": trial.settings.label(), "outcome": trial.outcome, "score": trial.score, "drop": trial.drop,
        "latency_ms": trial.latency_ms, "size_bytes": trial.size_bytes, "reason": trial.reason,
    }  # fmt: skip


def _f32_bytes(shop: Workshop) -> int:
    xml = shop.folders["export"] / "student-f32.xml"
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size


def _gap(reference: Path, candidate: Path, shop: Workshop, runtime: str = "openvino") -> dict[str, Any]:
    """How the INT8 executable's logits differ from the f32 one's on the same tiles."""
    samples = sample_tiles(shop)
    outputs = []
    for path, precision in ((reference, "f32"), (candidate, "int8")):
        with contextlib.closing(open_session(path, runtime, precision=precision, threads=shop.threads)) as session:
            outputs.append(run_session(session, samples))
    return vars(compare(outputs[0], outputs[1], shop.task.output == "tokens")).copy()


def _onnx_targets(context: StageContext, shop: Workshop, net: nn.Module, value: dict[str, Any]) -> dict[str, Any]:
    """Explicit quantize/dequantize ONNX for ONNX Runtime and TensorRT targets."""
    targets = [t for t in shop.recipe.parsed_targets if t.precision == "int8" and t.runtime != "openvino"]
    if not targets:
        return {}
    graph = Deployable(net, shop.spec, shop.task.output)
    found: dict[str, Any] = {}
    for target in targets:
        with tempfile.TemporaryDirectory(dir=context.folder) as folder:
            if target.runtime == "tensorrt":
                value["tensorrt"][target.name] = _tensorrt(context, shop, graph, target, Path(folder))
                continue
            source = export_onnx(graph, shop.spec, shop.classes, Path(folder) / "f32.onnx", input_dtype="float32").path
            made = context.folder / "student-int8.onnx"
            quantize_onnx(source, made, list(shop.calibration))
            found[target.name] = _gap(source, made, shop, "onnxruntime")
    return found


def _tensorrt(context: StageContext, shop: Workshop, graph: Deployable, target: Target, folder: Path) -> dict[str, Any]:
    version, opset = tensorrt_settings(target)
    f32 = export_onnx(graph, shop.spec, shop.classes, folder / "f32.onnx", opset, "float32").path
    quantized = folder / "int8.onnx"
    quantize_onnx(f32, quantized, list(shop.calibration))
    return typed_record(quantized, context.folder / target.name / "model.onnx", target, version, f32, shop)
