"""A black-box teacher (:mod:`rsedge.models.black_box`) as OpenVINO's own graph.

Torch cannot export it, so its file is read by OpenVINO and, for the deployable graph, joined behind the pre-processing that every
other network gets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from openvino import opset13 as ops
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.onnx.graph import TORCH_DTYPES, Deployable
from rsedge.export.onnx.writing import trace
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.answers import LEAST, LEAST_SIGMOID, Answer
from rsedge.models.black_box import BlackBox
from rsedge.runtimes.session import INPUT, LOGITS, VALID

_NORMALISED = "normalised"


class _Preparation(nn.Module):
    """The pre-processing of a deployable graph alone: DN -> normalised, valid."""

    def __init__(self, graph: Deployable) -> None:
        super().__init__()
        self.deployable = graph

    def forward(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        return self.deployable.prepare(dn)


def black_box_network(net: BlackBox, spec: InputSpec) -> Any:
    """The ``ov.Model`` of the file: normalised float32 (1, *spec.shape) -> ``logits``.

    Raises:
        RequestError: OpenVINO cannot read the file, or not in this shape.
    """
    model = read_openvino(net.path)
    try:
        model.reshape([1, *spec.shape])
        answer = model.output(net.output).get_node().input_value(0)
    except RuntimeError as error:
        raise RequestError(
            f"{net.path}: OpenVINO cannot run it on {(1, *spec.shape)}: {str(error).splitlines()[-1]}"
        ) from error
    answer = _logits(ops.convert(answer, "f32").output(0), net.answer)
    return _model([(LOGITS, answer)], model.get_parameters())


def _logits(raw: Any, answer: Answer) -> Any:
    """:meth:`rsedge.models.answers.Answer.logits` in OpenVINO's operations."""
    if answer.inside == "softmax":
        raw = ops.log(ops.maximum(raw, _constant(LEAST))).output(0)
    if answer.inside == "sigmoid":
        shares = ops.minimum(ops.maximum(raw, _constant(LEAST_SIGMOID)), _constant(1 - LEAST_SIGMOID))
        raw = ops.subtract(ops.log(shares), ops.log(ops.subtract(_constant(1.0), shares))).output(0)
    if answer.binary:
        raw = ops.concat([ops.multiply(raw, _constant(0.0)), raw], 1).output(0)
    return raw


def _constant(value: float) -> Any:
    return ops.constant(np.float32(value))


def deployable_black_box(graph: Deployable, net: BlackBox) -> Any:
    """The ``ov.Model`` ``dn`` -> ``logits``, ``valid`` of a black box with its band contract.

    Raises:
        RequestError: as :func:`black_box_network`.
    """
    sample = torch.zeros(1, *graph.spec.shape, dtype=TORCH_DTYPES[graph.spec.dtype])
    with TemporaryFolder() as folder:
        path = folder / "prepare.onnx"
        onnx.save(trace(_Preparation(graph), (sample,), (INPUT,), (_NORMALISED, VALID)), str(path))
        before = read_openvino(path)
    network = black_box_network(net, graph.spec)
    normalised, valid = (before.output(name).get_node().input_value(0) for name in (_NORMALISED, VALID))
    for reader in network.input(0).get_node().output(0).get_target_inputs():
        reader.replace_source_output(normalised)
    logits = network.output(0).get_node().input_value(0)
    return _model([(LOGITS, logits), (VALID, valid)], before.get_parameters())


def _model(outputs: list[tuple[str, Any]], parameters: Any) -> Any:
    model = ov.Model([ops.result(output) for _, output in outputs], parameters, "black box")
    for number, (name, _) in enumerate(outputs):
        model.output(number).get_tensor().set_names({name})
    return model
