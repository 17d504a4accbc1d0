"""Sessions over OpenVINO (CPU, GPU, NPU)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import missing_extra
from rsedge.runtimes.openvino_core import check_device, compile_model, in_flight, read_model, settings
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    SPEC_KEY,
    VALID,
    Array,
    Arrays,
    SessionBase,
    check_contract,
    outputs_of,
    parse_spec,
)


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
        check_device(core, path, device, precision)
        model = read_model(core, path)
        super().__init__(path, spec or parse_spec(_stored_spec(model), path), device, precision)
        check_contract(path, [p.any_name for p in model.inputs], [p.any_name for p in model.outputs])
        shape = model.input(INPUT).get_partial_shape()
        dims = tuple(None if d.is_dynamic else d.get_length() for d in shape) if shape.rank.is_static else ()
        self._graph_input(dims, np.dtype(model.input(INPUT).get_element_type().to_dtype()))
        self._compiled = compile_model(core, model, path, device, settings(device, precision, threads))
        self._request = self._compiled.create_infer_request()

    def _run(self, dn: Array) -> Arrays:
        self._request.infer({INPUT: dn}, share_inputs=True)
        return _fetch(self._request)

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Keeps several tiles in flight, see :func:`rsedge.runtimes.openvino_core.in_flight`; results come in order."""
        return in_flight(self._compiled, ({INPUT: self.prepare(one)} for one in inputs), _fetch)

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
    model = read_model(ov.Core(), path)
    return model, _stored_spec(model)


def _fetch(request: Any) -> Arrays:
    logits, valid = request.get_tensor(LOGITS).data, request.get_tensor(VALID).data
    return outputs_of(logits.copy(), valid.copy())


def _stored_spec(model: Any) -> str | None:
    if not model.has_rt_info([SPEC_KEY]):
        return _onnx_spec(model)
    return str(model.get_rt_info([SPEC_KEY]).astype(str))


def _onnx_spec(model: Any) -> str | None:
    """ONNX ``metadata_props`` arrive under ``rt_info/framework``."""
    place = ["framework", SPEC_KEY]
    return str(model.get_rt_info(place).astype(str)) if model.has_rt_info(place) else None
