"""Opens a model file with the runtime that is asked for."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.manifest import PRECISIONS, RUNTIMES
from rsedge.runtimes.checked import Model
from rsedge.runtimes.session import Hint, Session


def open_session(
    model: str | Model,
    runtime: str,
    *,
    input_spec: InputSpec | None = None,
    device: str = "CPU",
    precision: str | None = None,
    threads: int | None = None,
    hint: Hint = "latency",
    as_written: bool = False,
) -> Session:
    """Loads a model file.

    Args:
        model: ``.xml`` (OpenVINO IR), ``.onnx`` (OpenVINO or ONNX Runtime) or ``.tflite`` (LiteRT): a file, or bytes that were
            checked. What is built on a device is opened by :meth:`rsedge.runtimes.Bundle.session` alone.
        runtime: ``openvino``, ``onnxruntime`` or ``litert``.
        input_spec: the band contract; None reads it from the model file.
        device: the runtime's own name, e.g. ``CPU``, ``GPU``, ``NPU``, ``CUDA``, ``XNNPACK``; a GPU number follows a dot.
        precision: ``f32``, ``bf16``, ``fp16``, ``int8``; None means ``f32``.
        threads: CPU threads; None means all cores this process may use.
        hint: what OpenVINO tunes for: one tile at a time, or many in flight through ``stream``.
        as_written: ONNX Runtime computes every node as the file has it, nothing fused: where it stands in for a runtime that
            is not here (TensorRT, the Myriad), its own rewriting must not be part of the answer.

    Raises:
        RequestError: no such file, not a model, or a model without the ``dn`` -> ``logits``, ``valid`` contract.
        MissingCapability: the runtime or the device is not on this machine.
    """
    path = Path(model) if isinstance(model, str) else model
    if runtime not in RUNTIMES:
        raise RequestError(f"unknown runtime '{runtime}'; choose one of {', '.join(RUNTIMES)}")
    if precision is not None and precision not in PRECISIONS:
        raise RequestError(f"unknown precision '{precision}'; choose one of {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise RequestError(f"threads must be at least 1, not {threads}")
    if isinstance(path, Path) and not path.is_file():
        raise RequestError(f"{path}: no such model file")
    precision = precision or "f32"
    if as_written and runtime != "onnxruntime":
        raise RequestError(f"{path}: only ONNX Runtime runs a graph as written; {runtime} always optimises it")
    if runtime == "openvino" and device.upper() == "MYRIAD":
        from rsedge.runtimes.myriad.process import OpenVino2022Session

        return OpenVino2022Session(path, input_spec, "MYRIAD", precision, threads)
    if runtime == "openvino":
        from rsedge.runtimes.openvino.session import OpenVinoSession

        return OpenVinoSession(path, input_spec, device, precision, threads, hint)
    if hint != "latency":
        raise RequestError(f"{path}: a performance hint is OpenVINO's; {runtime} has none")
    if runtime == "onnxruntime":
        from rsedge.runtimes.onnxruntime.session import OnnxSession

        return OnnxSession(path, input_spec, device, precision, threads, as_written)
    if runtime == "litert":
        from rsedge.runtimes.litert.session import LiteRtSession

        return LiteRtSession(path, input_spec, device, precision, threads)
    raise RequestError(
        f"{path}: TensorRT runs engines, which `rsedge build BUNDLE` makes on the device; they are opened by their bundle"
    )
