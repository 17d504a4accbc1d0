"""The model files of targets: what was made for each, where it lies, and what runs its numbers on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import MissingCapability
from rsedge.devices.predict.dla import check_dla, expected_placement
from rsedge.devices.profiles.profile import load_profile
from rsedge.export.onnx.writing import OnnxArtefact
from rsedge.export.targets.myriad import MyriadArtefact
from rsedge.export.targets.tensorrt import TensorRtArtefact, check_typed, compiles, opset_for, type_for_tensorrt
from rsedge.results.records import (
    TypedOnnx,
)
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_stand_in
from rsedge.runtimes.session import Session
from rsedge.stages.context import RunContext

SAMPLE_TILES = 4


Tile = npt.NDArray[np.generic]


def sample_tiles(ctx: RunContext, count: int = SAMPLE_TILES) -> list[Tile]:
    """A few of the inputs of selection, each (1, *spec.shape), for parity, timing and golden vectors."""
    return [one[None] for one in ctx.selection.inputs[:count]]


def tensorrt_settings(target: Target) -> tuple[str, int]:
    """TensorRT version and ONNX opset for a target, from its device's profile.

    Raises:
        MissingCapability: the profile names no TensorRT release.
    """
    software = load_profile(target.device).software_for("tensorrt")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no TensorRT release")
    version = software.runtime_version
    return version, opset_for(target.precision, version, software.opset, software.max_opset)  # type: ignore[arg-type]


def is_myriad(target: Target) -> bool:
    """Whether the target is a VPU, which only OpenVINO 2022.3 knows."""
    return target.backend.name == "myriad"


def restore_myriad(folder: Path, record: Mapping[str, Any]) -> MyriadArtefact:
    """The artefact that :func:`_myriad` described, with its files in ``folder``."""
    return MyriadArtefact(**(dict(record) | {"xml": folder / record["xml"], "bin": folder / record["bin"]}))


def typed_record(source: Path, path: Path, target: Target, version: str, reference: Path, ctx: RunContext) -> TypedOnnx:
    """Types an ONNX file for TensorRT, holds it against the f32 one and compiles it where that can be done here."""
    batch = ctx.recipe.tensorrt.max_batch
    dla = ctx.recipe.tensorrt.dla
    made = type_for_tensorrt(source, path, target.precision, version, batch, dla)  # type: ignore[arg-type]
    if dla is not None:
        check_dla(load_profile(target.device), target.precision, onnx_path=source)
        made = dataclasses.replace(made, dla={"core": dla, "expected": expected_placement(source)})
    record = dataclasses.asdict(made)
    record["onnx"]["path"] = f"{target.name}/{path.name}"
    samples = [t.astype(np.float32) for t in sample_tiles(ctx)]
    try:
        gate = compiles(path, max_batch=batch)
    except MissingCapability as error:
        gate = {"ok": None, "message": str(error)}
    parity = check_typed(reference, path, samples, ctx.threads, ctx.task.output == "tokens")
    return TypedOnnx(artefact=record, parity=parity, compile_gate=gate)


def restore_typed(folder: Path, record: TypedOnnx) -> TensorRtArtefact:
    """The artefact that :func:`typed_record` described, with its file under ``folder``."""
    values = dict(record.artefact)
    onnx = dict(values.pop("onnx"))
    return TensorRtArtefact(onnx=OnnxArtefact(**(onnx | {"path": folder / onnx["path"]})), **values)


@dataclasses.dataclass(frozen=True)
class Artefact:
    """Where a target's model lies and which runtime can run its numbers on this machine."""

    target: Target
    path: Path
    files: tuple[Path, ...]
    runs_on: str

    @property
    def size_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.files)


def find_artefact(ctx: RunContext, target: Target) -> Artefact:
    """The model file of a target among the outputs of export and quantize."""
    made = "quantize" if target.precision == "int8" else "export"
    folder = ctx.folders[made]
    if target.runtime == "tensorrt":
        path = folder / target.name / "model.onnx"
        return Artefact(target, path, (path,), "onnxruntime")
    if is_myriad(target):
        path = folder / target.name / "model.xml"
        return Artefact(target, path, (path, path.with_suffix(".bin")), "openvino")
    stem = {"int8": "student-int8", "fp16": "student-fp16"}.get(target.precision, "student-f32")
    if target.runtime == "onnxruntime":
        path = folder / f"{stem}.onnx"
        return Artefact(target, path, (path,), "onnxruntime")
    if target.runtime == "litert":
        path = folder / f"{stem}.tflite"
        return Artefact(target, path, (path,), "litert")
    path = folder / f"{stem}.xml"
    return Artefact(target, path, (path, path.with_suffix(".bin")), "openvino")


def open_artefact(artefact: Artefact, ctx: RunContext) -> Session:
    """The executable that stands for the target here: its own on this CPU, else the same file on the CPU."""
    target = artefact.target
    stand_in = target.backend.here(target.device, target.precision)
    return open_stand_in(artefact.path, stand_in, ctx.spec, ctx.threads)
