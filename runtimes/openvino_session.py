"""Sessions over OpenVINO: CPU (x86 and Arm), GPU and NPU, from IR, ONNX or a compiled blob."""

from __future__ import annotations

import collections
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.openvino_blob import check_blob
from rsedge.runtimes.openvino_settings import check_device, compile_settings
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    SPEC_KEY,
    VALID,
    Array,
    Arrays,
    Hint,
    SessionBase,
    check_contract,
    outputs_of,
    parse_spec,
)


class OpenVinoSession(SessionBase):
    """An OpenVINO model (``.xml`` with its ``.bin``, ``.onnx``, or a ``.blob`` made here) on one device."""

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
        hint: Hint = "latency",
        cache: str | Path | None = None,
    ) -> None:
        ov = load_openvino(path)
        core = ov.Core()
        device = device.upper()
        self.runtime_version = ov.get_version()
        check_device(core, path, device, precision)
        settings = compile_settings(device, precision, threads, hint)
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        if path.suffix == ".blob":
            self._compiled, stored = _import(core, path, device, settings, self.runtime_version)
            super().__init__(path, spec or parse_spec(stored, path), device, precision)
        else:
            model = _read(core, path)
            super().__init__(path, spec or parse_spec(_stored_spec(model), path), device, precision)
            check_contract(path, _names(model.inputs), _names(model.outputs))
            make_static(model, path, self._spec, device)
            self._compiled = _compile(core, model, path, device, settings)
        self._take_over()
        self._request = self._compiled.create_infer_request()

    def _take_over(self) -> None:
        """The compiled model's contract and input."""
        compiled = self._compiled
        check_contract(self._path, _names(compiled.inputs), _names(compiled.outputs))
        entry = compiled.input(INPUT)
        shape = entry.get_partial_shape()
        dims = tuple(None if d.is_dynamic else d.get_length() for d in shape) if shape.rank.is_static else ()
        self._graph_input(dims, np.dtype(entry.get_element_type().to_dtype()))

    def _run(self, dn: Array) -> Arrays:
        self._request.infer({INPUT: dn}, share_inputs=True)
        return _fetch(self._request)

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Keeps as many tiles in flight as the device asks for, at least two, so that preparing one overlaps with running
        another; results come in order. The hint ``throughput`` makes the device ask for more.

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


def load_openvino(path: Path) -> Any:
    """The ``openvino`` module; :class:`MissingCapability` where it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", "openvino", f"{path}: running it") from error
    return openvino


def read_ir(path: Path) -> tuple[Any, str | None]:
    """An OpenVINO model and the band contract stored in it, without compiling.

    Raises:
        RequestError: truncated or no model. MissingCapability: OpenVINO is not installed.
    """
    model = _read(load_openvino(path).Core(), path)
    return model, _stored_spec(model)


def make_static(model: Any, path: Path, spec: InputSpec, device: str) -> None:
    """Gives a dynamic graph the contract's shape where the device runs static shapes only (NPU).

    Raises:
        RequestError: the graph cannot take that shape.
    """
    if not device.startswith("NPU") or not model.is_dynamic():
        return
    shape = [1, spec.channels, spec.tile, spec.tile]
    try:
        model.reshape({INPUT: shape})
    except RuntimeError as error:
        raise RequestError(
            f"{path}: cannot take the static shape {shape} that {device} needs: {_last(error)}"
        ) from error
    if model.is_dynamic():
        raise RequestError(
            f"{path}: stays dynamic with input {shape}, but {device} runs static shapes only; export it so"
        )


def compile_blob(path: Path, device: str, settings: dict[str, Any]) -> bytes:
    """A model compiled for ``device``, as the plugin exports it.

    Raises:
        RequestError: no model, or one that the device cannot compile.
    """
    core = load_openvino(path).Core()
    model = _read(core, path)
    make_static(model, path, parse_spec(_stored_spec(model), path), device)
    content = io.BytesIO()
    _compile(core, model, path, device, settings).export_model(content)
    return content.getvalue()


def _import(core: Any, path: Path, device: str, settings: dict[str, Any], version: str) -> tuple[Any, str]:
    """A compiled model from its blob, and the contract in the record beside it."""
    record = check_blob(path, version, device, device_name(core, device))
    try:
        return core.import_model(path.read_bytes(), device, settings), record["input_spec"]
    except RuntimeError as error:
        raise MissingCapability(
            f"{path}: {device} does not take this blob ({_last(error)}); build it anew: rsedge build {path.parent}"
        ) from error


def device_name(core: Any, device: str) -> str:
    """The device's own full name, e.g. the processor's; what a blob is pinned to."""
    return str(core.get_property(device, "FULL_DEVICE_NAME"))


def _names(ports: Iterable[Any]) -> list[str]:
    """One name per port: the contract's, where a tensor has several."""
    return [next((n for n in (INPUT, LOGITS, VALID) if n in p.names), p.any_name) for p in ports]


def _fetch(request: Any) -> Arrays:
    logits, valid = request.get_tensor(LOGITS).data, request.get_tensor(VALID).data
    return outputs_of(logits.copy(), valid.copy())


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise RequestError(
            f"{path}: OpenVINO cannot read this model; the file (or its .bin) is truncated, altered or no model: {_last(error)}"
        ) from error


def _compile(core: Any, model: Any, path: Path, device: str, settings: dict[str, Any]) -> Any:
    try:
        return core.compile_model(model, device, settings)
    except RuntimeError as error:
        raise RequestError(f"{path}: OpenVINO cannot compile this model for {device}: {_last(error)}") from error


def _stored_spec(model: Any) -> str | None:
    if not model.has_rt_info([SPEC_KEY]):
        return _onnx_spec(model)
    return str(model.get_rt_info([SPEC_KEY]).astype(str))


def _onnx_spec(model: Any) -> str | None:
    """ONNX ``metadata_props`` arrive under ``rt_info/framework``."""
    place = ["framework", SPEC_KEY]
    return str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None


def _last(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
