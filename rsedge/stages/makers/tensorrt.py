"""TensorRT's files: ONNX typed for one release, a file for every target, which the device builds an engine of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from rsedge.compress.quantize.search import Trial
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.predict.dla import check_dla, expected_placement
from rsedge.devices.predict.latency import predict_target
from rsedge.devices.profiles.profile import load_profile
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.tensorrt import TensorRtArtefact, check_typed, compiles, opset_for, type_for_tensorrt
from rsedge.recipe.schema import Recipe
from rsedge.results.records import OwnFile
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.file_checks import CompileCheck
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Delivered, Exported, Maker, made_for
from rsedge.stages.makers.int8 import Int8File, searched
from rsedge.stages.makers.onnx import QdqInt8
from rsedge.stages.samples import sample_tiles


class TensorRtMaker(Maker):
    """``<target>/model.onnx`` in the types that the target's release wants."""

    backend = "tensorrt"
    own = True

    def export(
        self, folder: Path, ctx: RunContext, graph: Deployable, onnx: Path, targets: Sequence[Target]
    ) -> Exported:
        typed = {}
        for target in targets:
            with TemporaryFolder(folder) as inside:
                opset = release(target)[1]
                source = export_onnx(graph, ctx.spec, ctx.classes, inside / "f32.onnx", opset, "float32").path
                typed[target.name] = _typed(source, folder / target.name / "model.onnx", target, source, ctx)
        return Exported(own=typed)

    def check(self, ctx: RunContext, targets: Sequence[Target]) -> None:
        if ctx.recipe.tensorrt.dla is None:
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

    def alike(self, target: Target, recipe: Recipe) -> Hashable:
        return release(target), tuple(g for g in recipe.gates if g.target in (None, target.name))

    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> TensorRtInt8:
        return TensorRtInt8(ctx, targets, scratch)

    def quantize(
        self, folder: Path, ctx: RunContext, net: nn.Module, targets: Sequence[Target], scratch: Path
    ) -> Delivered:
        runtime = self.int8(ctx, targets, scratch)
        made, model = searched(runtime, net, ctx)
        source = runtime.source(made.net)
        typed = {}
        for target in targets:
            path = folder / target.name / "model.onnx"
            typed[target.name] = _typed(model.quantized, path, target, source, ctx)
        return Delivered(tuple(typed), made.record, model.runs.stat().st_size, own=typed)

    def build(self, ctx: RunContext, target: Target) -> TensorRtArtefact:
        made = TensorRtArtefact.model_validate(made_for(ctx, target).artefact)
        return made.moved(self.artefact(ctx, target).path)


class TensorRtInt8(QdqInt8):
    """Files typed for a release, as written on ONNX Runtime: the numbers of the graph, not of an engine."""

    name = "tensorrt"
    opened_by = "onnxruntime"
    as_written = True

    def source(self, net: nn.Module) -> Path:
        return self.exported(net, release(self.targets[0])[1], "float32")

    def typed(self, path: Path) -> Path:
        version = release(self.targets[0])[0]
        made = type_for_tensorrt(path, self.fresh("model.onnx"), "int8", version, self.ctx.recipe.tensorrt.max_batch)
        return made.onnx.path

    def predicted(self, models: Mapping[str, tuple[Int8File, Trial]]) -> dict[str, float]:
        return {n: predict_target(m.quantized, self.targets[0].name).mid_ms for n, (m, _) in models.items()}


def release(target: Target) -> tuple[str, int]:
    """TensorRT version and ONNX opset for a target, from its device's profile.

    Raises:
        MissingCapability: the profile names no TensorRT release.
    """
    software = load_profile(target.device).software_for("tensorrt")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no TensorRT release")
    version = software.runtime_version
    return version, opset_for(target.precision, version, software.opset, software.max_opset)  # type: ignore[arg-type]


def _typed(source: Path, path: Path, target: Target, reference: Path, ctx: RunContext) -> OwnFile:
    """Types an ONNX file for TensorRT, holds it against the f32 one and compiles it where that can be done here."""
    settings = ctx.recipe.tensorrt
    version = release(target)[0]
    made = type_for_tensorrt(source, path, target.precision, version, settings.max_batch, settings.dla)  # type: ignore[arg-type]
    if settings.dla is not None:
        check_dla(load_profile(target.device), target.precision, onnx_path=source)
        made = made.model_copy(update={"dla": {"core": settings.dla, "expected": expected_placement(source)}})
    record = made.moved(Path(target.name, path.name)).model_dump(mode="json")
    samples = [t.astype(np.float32) for t in sample_tiles(ctx)]
    try:
        gate = compiles(path, max_batch=settings.max_batch)
    except MissingCapability as error:
        gate = CompileCheck(ok=None, message=str(error))
    typed = check_typed(reference, path, samples, ctx.threads, ctx.task.output)
    return OwnFile(artefact=record, parity={"typed_onnx": typed, "compile_gate": gate})


MAKER = TensorRtMaker()
