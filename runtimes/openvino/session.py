"""Sessions over OpenVINO: CPU (x86 and Arm), GPU and NPU, from IR, ONNX or a compiled blob."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.checked import Model
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.openvino.blob import check_blob
from rsedge.runtimes.openvino.core import (
    check_device,
    check_types,
    compile_model,
    float_options,
    in_flight,
    last_line,
    port_name,
    read_model,
    running,
    settings,
    shared_core,
)
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
    """An OpenVINO model (``.xml`` with its ``.bin``, or ``.onnx``) on one device.

    Args:
        built: the model compiled on this very device (:mod:`rsedge.runtimes.openvino.build`), which then runs instead.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Model,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
        hint: Hint = "latency",
        built: Built | None = None,
    ) -> None:
        ov = load_openvino(path)
        core = shared_core()
        device = device.upper()
        self.runtime_version = ov.get_version()
        check_device(core, path, device, precision)
        options = settings(device, precision, threads, hint)
        if built is not None and spec is not None:
            record = check_blob(built, self.runtime_version, device, device_name(core, device))
            self._compiled = _import(core, built, device, {**options, **record.options})
            super().__init__(path, spec, device, precision)
        else:
            model = read_model(core, path)
            super().__init__(path, spec or parse_spec(_stored_spec(model, path), path), device, precision)
            _check_ports(path, model)
            check_types(path, model)
            make_static(model, path, self._spec, device)
            options.update(float_options(core, path, model, device, precision))
            self._compiled = compile_model(core, model, path, device, options)
        self._take_over()
        self._request = self._compiled.create_infer_request()

    def _take_over(self) -> None:
        """The compiled model's contract and input."""
        compiled = self._compiled
        _check_ports(self._path, compiled)
        with running(self._path):
            entry = compiled.input(INPUT)
            shape = entry.get_partial_shape()
            dims = tuple(None if d.is_dynamic else d.get_length() for d in shape) if shape.rank.is_static else ()
            dtype = np.dtype(entry.get_element_type().to_dtype())
        self._graph_input(dims, dtype)

    def _run(self, dn: Array) -> Arrays:
        with running(self._path):
            self._request.infer({INPUT: dn}, share_inputs=True)
            return _fetch(self._request)

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Keeps several tiles in flight, see :func:`rsedge.runtimes.openvino.core.in_flight`; results come in order. The
        hint ``throughput`` makes the device ask for more.
        """
        return in_flight(self._path, self._compiled, ({INPUT: self.prepare(one)} for one in inputs), _fetch)

    def close(self) -> None:
        super().close()
        self._request = self._compiled = None


def load_openvino(path: Model) -> Any:
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
    load_openvino(path)
    model = read_model(shared_core(), path)
    return model, _stored_spec(model, path)


def make_static(model: Any, path: Model, spec: InputSpec, device: str) -> None:
    """Gives a dynamic graph the contract's shape where the device runs static shapes only (NPU).

    Raises:
        RequestError: the graph cannot take that shape.
    """
    if not device.startswith("NPU") or not model.is_dynamic():
        return
    shape = [1, *spec.shape]
    try:
        model.reshape({INPUT: shape})
    except (RuntimeError, UnicodeError) as error:  # what the library says need not be UTF-8
        raise RequestError(
            f"{path}: cannot take the static shape {shape} that {device} needs: {last_line(error)}"
        ) from error
    if model.is_dynamic():
        raise RequestError(
            f"{path}: stays dynamic with input {shape}, but {device} runs static shapes only; export it so"
        )


def compile_blob(path: Model, device: str, precision: str, options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A model compiled for ``device``, as the plugin exports it, and what the file itself added to the options.

    Raises:
        RequestError: no model, or one that the device cannot compile.
    """
    load_openvino(path)
    core = shared_core()
    model = read_model(core, path)
    check_types(path, model)
    make_static(model, path, parse_spec(_stored_spec(model, path), path), device)
    added = float_options(core, path, model, device, precision)
    content = io.BytesIO()
    compile_model(core, model, path, device, {**options, **added}).export_model(content)
    return content.getvalue(), added


def _import(core: Any, built: Built, device: str, options: dict[str, Any]) -> Any:
    try:
        return core.import_model(built.content, device, options)
    except (RuntimeError, UnicodeError) as error:
        raise MissingCapability(
            f"{built}: {device} does not take this blob ({last_line(error)}); {built.rebuild}"
        ) from error


def device_name(core: Any, device: str) -> str:
    """The device's own full name, e.g. the processor's; what a blob is pinned to."""
    return str(core.get_property(device, "FULL_DEVICE_NAME"))


def _check_ports(path: Model, model: Any) -> None:
    inputs, outputs = ([port_name(p, (INPUT, LOGITS, VALID)) for p in ports] for ports in (model.inputs, model.outputs))
    check_contract(path, inputs, outputs)


def _fetch(request: Any) -> Arrays:
    logits, valid = request.get_tensor(LOGITS).data, request.get_tensor(VALID).data
    return outputs_of(logits.copy(), valid.copy())


def _stored_spec(model: Any, path: Model) -> str | None:
    """The band contract's text; ONNX ``metadata_props`` arrive under ``rt_info/framework``.

    Raises:
        RequestError: it is no text.
    """
    place = next((p for p in ([SPEC_KEY], ["framework", SPEC_KEY]) if model.has_rt_info(p)), None)
    try:
        return None if place is None else str(model.get_rt_info(place).astype(str))
    except UnicodeError as error:
        raise RequestError(f"{path}: the band contract in it is no text ({error}); copy the file again") from error
