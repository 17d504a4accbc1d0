"""The float graph with some layers rounded as its INT8 copy rounds them, all else in float: what their rounding alone does.

Nothing is calibrated again: ranges and 8-bit weights are those of the INT8 graph, in which NNCF keeps the names of layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as opset

from rsedge.compress.quantize.ptq import Tiles, compute_layers
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.runtimes.session import LOGITS

_CARRY = ("Concat", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice", "Transpose", "Unsqueeze",
          "VariadicSplit")  # fmt: skip
"""Operations that only move values or choose among them: rounding before them is rounding after them."""
_JOIN = "Concat"
_WHOLE = ("i8", "u8", "i4", "u4")


class Damage:
    """RMS difference of the logits of graphs with some layers rounded from the float graph's, over their standard deviation.

    Args:
        model: the float graph.
        int8: its INT8 copy.
        inputs: DN (N, ...) of the input's type, one by one.
        threads: of the processor.
    """

    def __init__(self, model: ov.Model, int8: ov.Model, inputs: Tiles, threads: int | None) -> None:
        self._model, self._int8, self._inputs, self._threads = model, int8, inputs, threads
        self._float = self._logits(model)
        self._spread = float(self._float.std()) or 1.0

    def __call__(self, layers: Collection[str]) -> float:
        off = self._logits(alone(self._model, self._int8, layers)) - self._float
        return float(np.sqrt(np.mean(off**2))) / self._spread

    def _logits(self, model: ov.Model) -> npt.NDArray[np.float64]:
        # In float with simulated rounding: INT8 kernels would join layers that are rounded with those that are not.
        options = settings("CPU", "f32", self._threads) | {"LP_TRANSFORMS_MODE": "NO"}
        compiled = shared_core().compile_model(model, "CPU", options)
        return np.concatenate([compiled({0: one[None]})[LOGITS].astype(np.float64) for one in self._inputs])


def rounded_layers(int8: ov.Model) -> tuple[str, ...]:
    """Names of the layers that compute in 8 bits, in an order in which they run: both inputs are rounded or 8-bit constants."""
    ops = _by_name(int8)
    return tuple(n for n in compute_layers(int8) if all(_is_rounded(v) for v in ops[n].input_values()[:2]))


def alone(model: ov.Model, int8: ov.Model, layers: Collection[str]) -> ov.Model:
    """A copy of ``model`` in which only ``layers`` are rounded, as in ``int8``.

    Args:
        model: the float graph of which ``int8`` was made.
        layers: of those that :func:`rounded_layers` names.
    """
    found = model.clone()
    ops, made = _by_name(found), _by_name(int8)
    for name in layers:
        for own, value in zip(ops[name].inputs()[:2], made[name].input_values()[:2], strict=True):
            own.replace_source_output(
                value if _is_weights(value) else _rounded(own.get_source_output(), _quantizers(value), ops)
            )
    return found


def _by_name(model: ov.Model) -> dict[str, Any]:
    return {op.get_friendly_name(): op for op in model.get_ops()}


def _is_rounded(value: Any) -> bool:
    return _is_weights(value) or bool(_quantizers(value))


def _is_weights(value: Any) -> bool:
    """Whether a value is an 8-bit constant, however scaled."""
    op = value.get_node()
    while op.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape"):
        op = op.input_value(0).get_node()
    return op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in _WHOLE


def _quantizers(value: Any) -> list[Any]:
    """The quantizers that a value comes from; none where some of what it comes from is not rounded."""
    found, stack = [], [value.get_node()]
    while stack:
        op = stack.pop()
        if op.get_type_name() == "FakeQuantize":
            found.append(op)
        elif op.get_type_name() in _CARRY:
            stack += [
                v.get_node() for v in (op.input_values() if op.get_type_name() == _JOIN else op.input_values()[:1])
            ]
        else:
            return []
    return found


def _rounded(value: Any, quantizers: list[Any], ops: Mapping[str, Any]) -> Any:
    """A float value as ``quantizers`` round it: NNCF gives all parts of a join one range, and scales what it smooths.

    Args:
        ops: of the float graph, by name: what is not there was added, such as the scale of bands.
    """
    first, above = quantizers[0], quantizers[0].input_value(0).get_node()
    while above.get_type_name() == "Multiply" and above.get_friendly_name() not in ops:
        value, above = opset.multiply(value, above.input_value(1)).output(0), above.input_value(0).get_node()
    ranges = first.input_values()[1:]
    return opset.fake_quantize(value, *ranges, first.get_attributes()["levels"]).output(0)
