"""The export stage: the student as the files that targets take, each checked against torch."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from rsedge.cache.stage import StageContext
from rsedge.data.errors import GateFailed, MissingCapability, RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.predict.dla import check_dla
from rsedge.devices.profiles.profile import load_profile
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import compare, parity, run_session, run_torch
from rsedge.export.targets.litert import export_litert
from rsedge.export.targets.myriad import check_release, export_myriad
from rsedge.export.targets.openvino import export_openvino
from rsedge.results.records import (
    Export,
    TypedOnnx,
)
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_session
from rsedge.stages.artefacts import is_myriad, sample_tiles, tensorrt_settings, typed_record
from rsedge.stages.context import RunContext


def export_stage(context: StageContext, ctx: RunContext) -> Export:
    """Writes ``student-f32.onnx``, ``student-f32.xml``, for LiteRT ``student-f32.tflite``, for TensorRT ``<target>/model.onnx``
    and for the Myriad ``<target>/model.xml``; checks parity.

    Raises:
        GateFailed: torch, ONNX Runtime, OpenVINO and LiteRT disagree at f32, or OpenVINO 2022.3 beyond fp16.
    """
    graph = Deployable(ctx.student(ctx.shipped), ctx.spec, ctx.task.output)
    onnx = export_onnx(graph, ctx.spec, ctx.classes, context.folder / "student-f32.onnx")
    ir = export_openvino(onnx.path, context.folder / "student-f32.xml", ctx.spec, ctx.classes)
    found = parity(graph, onnx.path, ir.xml, sample_tiles(ctx), ctx.threads)
    if not found["passed"]:
        gaps = ", ".join(f"{r} {found[r]['max_abs']:.2g}" for r in ("onnxruntime", "openvino"))
        raise GateFailed(f"export: runtimes disagree with torch at f32 (largest difference of logits: {gaps})")
    sizes = {"onnx": onnx.size_bytes, "openvino": ir.size_bytes}
    if any(t.runtime == "litert" for t in ctx.recipe.parsed_targets):
        sizes["litert"], found["litert"] = _litert(context, ctx, graph)
    typed, myriad = {}, {}
    for target in ctx.recipe.parsed_targets:
        if target.runtime == "tensorrt" and target.precision != "int8":
            typed[target.name] = _typed(context, ctx, graph, target)
        elif is_myriad(target):
            myriad[target.name] = _myriad(context, ctx, graph, target)
    if any(t.precision == "fp16" and t.runtime == "openvino" and not is_myriad(t) for t in ctx.recipe.parsed_targets):
        half = export_openvino(onnx.path, context.folder / "student-fp16.xml", ctx.spec, ctx.classes, True)
        sizes["openvino-fp16"] = half.size_bytes
    return Export(parity=found, sizes=sizes, tensorrt=typed, myriad=myriad)


def check_dla_student(ctx: RunContext) -> None:
    """Holds the untrained student against the DLA of every TensorRT target, before any work.

    Raises:
        RequestError: a student with attention or with operations that the DLA does not have; says what would be possible.
    """
    targets = [t for t in ctx.recipe.parsed_targets if t.runtime == "tensorrt"]
    if ctx.recipe.tensorrt.dla is None or not targets:
        return
    graph = Deployable(ctx.build()[0].eval(), ctx.spec, ctx.task.output)
    with TemporaryFolder() as folder:
        path = export_onnx(graph, ctx.spec, ctx.classes, folder / "student.onnx", input_dtype="float32").path
        for target in targets:
            try:
                check_dla(load_profile(target.device), target.precision, onnx_path=path)
            except RequestError as error:
                words = str(error).replace(str(path), f"student '{ctx.student_name}'")
                raise RequestError(f"tensorrt.dla: {target.name}: {words}") from error


def _myriad(context: StageContext, ctx: RunContext, graph: Deployable, target: Target) -> dict[str, Any]:
    """The IR that OpenVINO 2022.3.2 makes of the student, with its differences from f32."""
    software = load_profile(target.device).software_for("openvino")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no OpenVINO release")
    check_release(target.name, software.runtime_version)
    with TemporaryFolder(context.folder) as folder:
        source = export_onnx(graph, ctx.spec, ctx.classes, folder / "f32.onnx", software.opset, "float32").path
        xml = context.folder / target.name / "model.xml"
        made = export_myriad(source, xml, ctx.spec, ctx.classes, sample_tiles(ctx), ctx.threads)
    if not made.passed:
        raise GateFailed(
            f"export: {target.name}: OpenVINO {software.runtime_version} is off by {made.weights_fp16['max_abs']:.2g} in "
            "its logits, more than fp16 weights explain"
        )
    return made.record()


def _litert(context: StageContext, ctx: RunContext, graph: Deployable) -> tuple[int, dict[str, Any]]:
    """Size of ``student-f32.tflite``, and how it differs from torch.

    Raises:
        GateFailed: beyond the limit of f32.
    """
    made = export_litert(graph, context.folder / "student-f32.tflite", ctx.spec, ctx.classes)
    samples = sample_tiles(ctx)
    with contextlib.closing(open_session(made.path, "litert", threads=ctx.threads)) as session:
        gap = compare(run_torch(graph, samples), run_session(session, samples), graph.output == "tokens")
    if not gap.within():
        raise GateFailed(
            f"export: LiteRT disagrees with torch at f32 (largest difference of logits: {gap.max_abs:.2g})"
        )
    return made.size_bytes, dataclasses.asdict(gap)


def _typed(context: StageContext, ctx: RunContext, graph: Deployable, target: Target) -> TypedOnnx:
    version, opset = tensorrt_settings(target)
    with TemporaryFolder(context.folder) as folder:
        source = export_onnx(graph, ctx.spec, ctx.classes, folder / "f32.onnx", opset, "float32").path
        return typed_record(source, context.folder / target.name / "model.onnx", target, version, source, ctx)
