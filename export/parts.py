"""Parts of larger systems as graphs of their own: a denoising step, a decoder, a vision tower with its projector.

They have named tensors of fixed shape instead of a band contract; the program around them (a sampler, a language model) runs
on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rsedge.data.errors import RequestError
from rsedge.data.files import place, sha256_file
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.external import export_external
from rsedge.export.onnx.opset import EXPORTED
from rsedge.export.onnx.writing import LARGEST, OnnxArtefact, save_onnx, trace, weight_bytes
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.parts import Arrays, Part
from rsedge.runtimes.onnxruntime.session import load_onnx
from rsedge.runtimes.openvino.core import shared_core


def export_part(part: Part, path: str | Path, opset: int = EXPORTED) -> OnnxArtefact:
    """Writes a part as ONNX, whole or not at all; over 2 GB with its weights beside it.

    Raises:
        RequestError: it cannot be exported to that opset (over 2 GB: to none but the exporter's own).
    """
    net, samples = part.net.eval(), list(part.inputs.values())
    if weight_bytes(net) > LARGEST:
        if opset != EXPORTED:
            raise RequestError(f"{path}: over 2 GB only opset {EXPORTED} is written, not {opset}")
        return export_external(net, samples, list(part.inputs), part.outputs, path)
    return save_onnx(trace(net, samples, list(part.inputs), part.outputs, opset), path)


def part_to_openvino(onnx_path: str | Path, xml_path: str | Path, compress_to_fp16: bool = False) -> str:
    """Converts a part to OpenVINO IR; gives the SHA-256 of the ``.xml``.

    Raises:
        RequestError: OpenVINO cannot read the file.
    """
    model = read_openvino(onnx_path)
    graph = onnx.load(str(onnx_path), load_external_data=False).graph
    for ports, entries in ((model.inputs, graph.input), (model.outputs, graph.output)):
        known = {entry.name for entry in entries}
        for port in ports:
            # A tensor that runs through operations without effect has several names; sessions go by the graph's own.
            port.get_tensor().set_names(port.get_names() & known)
    return save_ir(model, xml_path, compress_to_fp16)


def save_ir(model: Any, xml_path: str | Path, compress_to_fp16: bool = False) -> str:
    """Writes an ``ov.Model`` that carries no band contract, both files or none; gives the SHA-256 of the ``.xml``."""
    import openvino as ov

    target = Path(xml_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(target.parent) as folder:
        made = folder / target.name
        ov.save_model(model, made, compress_to_fp16=compress_to_fp16)
        place(made.with_suffix(".bin"), target.with_suffix(".bin"))
        place(made, target)
    return sha256_file(target)


def run_part_onnx(
    path: str | Path, inputs: Arrays, threads: int | None = None, as_written: bool = False
) -> dict[str, np.ndarray]:
    """A part on ONNX Runtime's CPU.

    Args:
        as_written: nothing fused, for a file typed for TensorRT; see :func:`rsedge.runtimes.opening.open_session`.

    Raises:
        RequestError: truncated or no ONNX.
    """
    session = load_onnx(Path(path), threads, as_written)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_part_openvino(path: str | Path, inputs: Arrays, threads: int | None = None) -> dict[str, np.ndarray]:
    """A part on OpenVINO's CPU at f32 (the default would be bf16 where the machine has it)."""
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = shared_core().compile_model(str(path), "CPU", settings)
    found = compiled(dict(inputs))
    return {port.get_any_name(): np.array(found[port]) for port in compiled.outputs}


def part_parity(part: Part, onnx_path: str | Path, xml_path: str | Path, samples: Sequence[Arrays]) -> dict[str, float]:
    """The same inputs through torch, ONNX Runtime and OpenVINO at f32: by runtime the largest difference over all outputs, each
    relative to the output's largest value (at least 1); :data:`rsedge.runtimes.file_checks.F32_TOLERANCE` is its limit.
    """
    if not samples:
        raise RequestError("parity needs at least one sample")
    worst = {"onnxruntime": 0.0, "openvino": 0.0}
    for inputs in samples:
        expected = part.run(inputs)
        for runtime, found in (
            ("onnxruntime", run_part_onnx(onnx_path, inputs)),
            ("openvino", run_part_openvino(xml_path, inputs)),
        ):
            worst[runtime] = max(worst[runtime], *(_gap(found[name], expected[name]) for name in part.outputs))
    return worst


def _gap(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        raise RequestError(f"outputs differ in shape: {found.shape} and {expected.shape}")
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(found.astype(np.float64) - expected).max()) / scale
