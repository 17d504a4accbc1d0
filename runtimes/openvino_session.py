"""Sessions over OpenVINO (CPU, GPU, NPU)."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    SPEC_KEY,
    VALID,
    Array,
    Arrays,
    SessionBase,
    check_contract,
    cpu_count,
    outputs_of,
    parse_spec,
)

# Activations outside quantized layers stay f32, so that a host with bf16 units gives the same numbers as one without.
_HINTS = {"f32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
_NEEDS_CPU = {"bf16": "BF16", "fp16": "FP16"}


class OpenVinoSession(SessionBase):
    """An OpenVINO model (``.xml`` with its ``.bin``, or ``.onnx``) compiled for one device."""

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        try:
            import openvino as ov
        except ModuleNotFoundError as error:
            raise missing_extra("openvino", "openvino", f"{path}: running it") from error
        core = ov.Core()
        device = device.upper()
        self.runtime_version = ov.get_version()
        _check_device(core, path, device, precision)
        model = _read(core, path)
        super().__init__(path, spec or parse_spec(_stored_spec(model), path), device, precision)
        check_contract(path, [p.any_name for p in model.inputs], [p.any_name for p in model.outputs])
        shape = model.input(INPUT).get_partial_shape()
        dims = tuple(None if d.is_dynamic else d.get_length() for d in shape) if shape.rank.is_static else ()
        self._graph_input(dims, np.dtype(model.input(INPUT).get_element_type().to_dtype()))
        self._compiled = _compile(core, model, path, device, _settings(device, precision, threads))
        self._request = self._compiled.create_infer_request()

    def _run(self, dn: Array) -> Arrays:
        self._request.infer({INPUT: dn}, share_inputs=True)
        return _fetch(self._request)

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Keeps as many tiles in flight as the device asks for, at least two, so that preparing one overlaps with running
        another; results come in order.

        Requests are waited for, not called back: a Python callback that still runs while a model is taken down can
        lock up the process (seen with OpenVINO 2026.4).
        """
        free = self._spare_requests()
        busy: collections.deque[Any] = collections.deque()
        try:
            for one in inputs:
                if not free:
                    yield self._finish(busy, free)
                request = free.pop()
                request.start_async({INPUT: self.prepare(one)})
                busy.append(request)
            while busy:
                yield self._finish(busy, free)
        finally:
            for request in busy:
                request.wait()

    def _spare_requests(self) -> list[Any]:
        best = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        return [self._compiled.create_infer_request() for _ in range(max(2, best))]

    @staticmethod
    def _finish(busy: collections.deque[Any], free: list[Any]) -> Arrays:
        """Waits for the oldest request and takes its result."""
        request = busy[0]
        request.wait()
        busy.popleft()
        free.append(request)
        return _fetch(request)

    def close(self) -> None:
        super().close()
        self._request = self._compiled = None


def read_ir(path: Path) -> tuple[Any, str | None]:
    """An OpenVINO model and the band contract stored in it, without compiling.

    Raises:
        RequestError: truncated or no model. MissingCapability: OpenVINO is not installed.
    """
    try:
        import openvino as ov
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", "openvino", f"{path}: reading it") from error
    model = _read(ov.Core(), path)
    return model, _stored_spec(model)


def _fetch(request: Any) -> Arrays:
    logits, valid = request.get_tensor(LOGITS).data, request.get_tensor(VALID).data
    return outputs_of(logits.copy(), valid.copy())


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise RequestError(
            f"{path}: OpenVINO cannot read this model; the file (or its .bin) is truncated, altered or no model: "
            f"{_last_line(error)}"
        ) from error


def _compile(core: Any, model: Any, path: Path, device: str, settings: dict[str, Any]) -> Any:
    try:
        return core.compile_model(model, device, settings)
    except RuntimeError as error:
        raise RequestError(f"{path}: OpenVINO cannot compile this model for {device}: {_last_line(error)}") from error


def _settings(device: str, precision: str, threads: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    if device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = min(threads, cpu_count()) if threads else cpu_count()
    return settings


def _check_device(core: Any, path: Path, device: str, precision: str) -> None:
    available = list(core.available_devices)
    if device.partition(".")[0] not in {a.partition(".")[0] for a in available}:
        raise MissingCapability(
            f"{path}: OpenVINO finds no {device} on this machine (it finds: {', '.join(available) or 'nothing'}); "
            "install the device's driver, or use a bundle for one of these"
        )
    need = _NEEDS_CPU.get(precision)
    if device == "CPU" and need and need not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        raise MissingCapability(
            f"{path}: this CPU has no {need} units, so precision '{precision}' would silently run as f32; "
            "use an f32 or int8 bundle here"
        )


def _stored_spec(model: Any) -> str | None:
    if not model.has_rt_info([SPEC_KEY]):
        return _onnx_spec(model)
    return str(model.get_rt_info([SPEC_KEY]).astype(str))


def _onnx_spec(model: Any) -> str | None:
    """ONNX ``metadata_props`` arrive under ``rt_info/framework``."""
    place = ["framework", SPEC_KEY]
    return str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
