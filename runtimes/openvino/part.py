"""Parts of networks over OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.checked import Model
from rsedge.runtimes.graph_types import weight_types
from rsedge.runtimes.openvino.core import (
    check_device,
    check_types,
    compile_model,
    float_options,
    port_name,
    read_model,
    running,
    settings,
    shared_core,
)
from rsedge.runtimes.openvino.session import load_openvino
from rsedge.runtimes.parts import PartSession, fixed
from rsedge.runtimes.session import Array, Arrays

PRODUCTS = frozenset({
    "Convolution", "Deconvolution", "GroupConvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq",
    "ScaledDotProductAttention",
})  # fmt: skip
"""Layers with products, as OpenVINO's plugins call them in what they made of a graph."""


class OpenVinoPart(PartSession):
    """A part (``.xml`` with its ``.bin``, or ``.onnx``) on one device.

    Raises:
        RequestError: no model, or one with tensors of open shape. MissingCapability: OpenVINO or the device is not here.
    """

    runtime = "openvino"

    def __init__(self, path: Model, how: Opening) -> None:
        ov = load_openvino(path)
        core, device = shared_core(), how.device.upper()
        self.runtime_version = ov.get_version()
        check_device(core, path, device, how.precision)
        options = settings(device, how.precision, how.threads, how.hint)
        model = read_model(core, path)
        check_types(path, model)
        options.update(float_options(core, path, model, device, how.precision))
        compiled = compile_model(core, model, path, device, options)
        with running(path):
            # By the names of the model as it was read: compiling gives ports those of what it joined as well.
            inputs = {port_name(port): (_shape(path, port), _dtype(port)) for port in model.inputs}
            outputs = tuple(port_name(port) for port in model.outputs)
        super().__init__(path, device, how.precision, inputs, outputs)
        self._request: Any = compiled.create_infer_request()

    def _run(self, inputs: Arrays) -> Arrays:
        if self._request is None:
            raise RequestError(f"{self._path}: the session is closed")
        with running(self._path):
            self._request.infer({i: inputs[name] for i, name in enumerate(self.inputs)}, share_inputs=True)
            return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self.outputs)}

    def products(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        if self._request is None:
            raise RequestError(f"{self._path}: the session is closed")
        with running(self._path):
            nodes = [n.get_rt_info() for n in self._request.get_compiled_model().get_runtime_model().get_ops()]
            kinds = [n["runtimePrecision"].astype(str) for n in nodes if n["layerType"].astype(str) in PRODUCTS]
        return weight_types((kind, 1) for kind in kinds)

    def close(self) -> None:
        self._request = None


def _shape(path: Model, port: Any) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    sizes = tuple(None if d.is_dynamic else d.get_length() for d in shape) if shape.rank.is_static else (None,)
    return fixed(path, port_name(port), sizes)


def _dtype(port: Any) -> np.dtype[Any]:
    return np.dtype(port.get_element_type().to_dtype())
