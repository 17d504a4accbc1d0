"""8-bit ONNX for TensorRT and ONNX Runtime: explicit quantize/dequantize pairs, int8, symmetric, every zero-point 0.

TensorRT 10 and later take nothing else (no uint8, no calibration of their own). GPUs add in 32 bits; ONNX Runtime on a CPU without
VNNI saturates as OpenVINO does there (:mod:`rsedge.compress.quantize.ptq`), so its files keep weights to 7 bits (``overflow``).

NNCF calibrates on the real DN tiles; its hardware tables give never-negative activations an unsigned range, which is rewritten
here to the signed int8 range over the same values. What leaves this module has been checked node by node.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nncf
import numpy as np
import onnx
from nncf.common.quantization.structs import QuantizationScheme
from nncf.quantization.advanced_parameters import QuantizationParameters
from onnx import TensorProto, helper, numpy_helper

from rsedge.compress.quantize.ptq import (
    Calibration,
    PtqSettings,
    Tiles,
    advanced,
    check_calibration,
    check_part_calibration,
    quiet_nncf,
)
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path
from rsedge.data.record import Record
from rsedge.models.parts import Arrays

QDQ = ("QuantizeLinear", "DequantizeLinear")
COMPUTE = ("Conv", "ConvTranspose", "MatMul", "Gemm")
GPU = PtqSettings(overflow="disable")
"""NNCF's defaults, with all 8 bits of the weights."""


class TensorRtQuantization(Record):
    """What was made: number of Q and DQ nodes, how many were turned from unsigned to signed, and the calibration."""

    quantizers: int
    made_signed: int
    layers: int
    calibration: Calibration


def quantize_onnx(
    source: str | Path, target: str | Path, tiles: Tiles, settings: PtqSettings = GPU
) -> TensorRtQuantization:
    """Writes the symmetric 8-bit copy of an f32 ONNX file; metadata are kept.

    Args:
        source: ONNX with one float32 input ``dn`` (1, C, T, T).
        target: the file to write, atomically.
        tiles: DN tiles (C, T, T) of any type that float32 holds exactly.
        settings: of these the preset does not matter: every range is symmetric.

    Raises:
        RequestError: unusable calibration, an input that is not float32, unknown ``float_names``, settings of weights alone or
            ranges by histogram, or a result that is not symmetric int8.
    """
    if settings.activations == "float":
        raise RequestError(f"{source}: weights alone are quantized for OpenVINO only")
    if settings.float_precision != "f32":
        raise RequestError(f"{source}: {settings.float_precision} for the rest is for OpenVINO only")
    model = onnx.load(str(source))
    name = _input_name(model, source)
    checked, record = check_calibration(tiles)
    unknown = sorted(set(settings.float_names) - {n.name for n in model.graph.node})
    if unknown:
        raise RequestError(f"{source}: there is no node '{unknown[0]}' to keep in float")
    return _written(
        _quantized(model, [{name: t.astype(np.float32)} for t in checked], settings), source, target, record
    )


def quantize_part_onnx(
    source: str | Path, target: str | Path, samples: Sequence[Arrays], settings: PtqSettings = GPU
) -> TensorRtQuantization:
    """As :func:`quantize_onnx`, of a graph with several named inputs (:class:`rsedge.models.parts.Part`).

    Args:
        samples: one array per input of the graph, in its shape and type.

    Raises:
        RequestError: unusable samples, or a result that is not symmetric int8.
    """
    model = onnx.load(str(source))
    wanted = {}
    for entry in model.graph.input:
        kind = entry.type.tensor_type
        shape = tuple(d.dim_value for d in kind.shape.dim)
        wanted[entry.name] = shape, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    record = check_part_calibration(samples, wanted)
    return _written(_quantized(model, [dict(sample) for sample in samples], settings), source, target, record)


def _quantized(model: onnx.ModelProto, samples: list[Arrays], settings: PtqSettings = GPU) -> onnx.ModelProto:
    symmetric = QuantizationParameters(mode=QuantizationScheme.SYMMETRIC)
    names = {*_preprocessing(model), *_decoding(model), *settings.float_names}
    names |= set(_first(model)) if "first" in settings.float_layers else set()
    names |= set(_last(model)) if "last" in settings.float_layers else set()
    with quiet_nncf():
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            fast_bias_correction=settings.bias_correction == "fast",
            model_type=nncf.ModelType.TRANSFORMER if is_onnx_transformer(model) else None,
            ignored_scope=nncf.IgnoredScope(names=sorted(names), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                **advanced(settings, symmetric=True),
                activations_quantization_params=symmetric,
                weights_quantization_params=QuantizationParameters(
                    mode=QuantizationScheme.SYMMETRIC, signedness_to_force=True
                ),
            ),
        )


def _written(
    made: onnx.ModelProto, source: str | Path, target: str | Path, record: Calibration
) -> TensorRtQuantization:
    """Writes the quantized graph once every quantizer of it is symmetric int8."""
    changed = _make_signed(made)
    quantizers = check_symmetric_int8(made)
    if not quantizers:
        raise RequestError(f"{source}: NNCF found nothing to quantize in this graph")
    onnx.checker.check_model(made)
    with atomic_path(target) as temporary:
        onnx.save(made, str(temporary))
    layers = sum(n.op_type in COMPUTE for n in made.graph.node)
    return TensorRtQuantization(quantizers=quantizers, made_signed=changed, layers=layers, calibration=record)


def _input_name(model: onnx.ModelProto, source: str | Path) -> str:
    inputs = list(model.graph.input)
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        found = [(i.name, TensorProto.DataType.Name(i.type.tensor_type.elem_type)) for i in inputs]
        raise RequestError(f"{source}: TensorRT needs one float32 input 'dn', this file has {found}")
    return str(inputs[0].name)


def is_onnx_transformer(model: onnx.ModelProto) -> bool:
    """Whether the graph holds attention: a softmax beside matrix products."""
    return {"Softmax", "MatMul"} <= {n.op_type for n in model.graph.node}


def _decoding(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between the last layers and a detector's candidates (an output of three axes)."""
    made = {value: node for node in model.graph.node for value in node.output}
    stack = [o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT
             and len(o.type.tensor_type.shape.dim) == 3]  # fmt: skip
    found: dict[str, None] = {}
    while stack:
        node = made.get(stack.pop())
        if node is not None and node.name not in found and node.op_type not in COMPUTE:
            found[node.name] = None
            stack += list(node.input)
    return list(found)


def onnx_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all convolutions and matrix products, in the order of the file, which is one in which they run."""
    return tuple(n.name for n in model.graph.node if n.op_type in COMPUTE)


def _last(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions or matrix products that the float outputs come from."""
    made = {value: node for node in model.graph.node for value in node.output}
    stack = [o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT]
    found: dict[str, None] = {}
    seen: set[str] = set()
    while stack:
        node = made.get(stack.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in COMPUTE:
            found[node.name] = None
        else:
            stack += list(node.input)
    return list(found)


def _preprocessing(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between the input and the first convolution or matrix product on each way."""
    return _walk_down(model)[0]


def _first(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions or matrix products that read the pre-processed input."""
    return _walk_down(model)[1]


def _walk_down(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    before: dict[str, None] = {}
    compute: dict[str, None] = {}
    stack = [i.name for i in model.graph.input]
    while stack:
        for node in readers.get(stack.pop(), []):
            if node.op_type in COMPUTE:
                compute[node.name] = None
            elif node.name not in before:
                before[node.name] = None
                stack += list(node.output)
    return list(before), list(compute)


def _stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    tensors = {i.name: i for i in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensors[node.output[0]] = attribute.t
    return tensors


def _make_signed(model: onnx.ModelProto) -> int:
    """Unsigned activation quantizers with zero-point 0 become signed: 255 steps over [0, m] turn into 127."""
    stored = _stored(model)
    changed = 0
    for node in model.graph.node:
        if node.op_type not in QDQ or len(node.input) < 3 or node.input[0] in stored:
            continue
        scale, zero = stored.get(node.input[1]), stored.get(node.input[2])
        if scale is None or zero is None or zero.data_type != TensorProto.UINT8 or numpy_helper.to_array(zero).any():
            continue
        wider = (numpy_helper.to_array(scale) * (255 / 127)).astype(np.float32)
        zeros = np.zeros(numpy_helper.to_array(zero).shape, np.int8)
        for position, value in ((1, wider), (2, zeros)):
            name = f"{node.input[position]}_int8"
            if name not in stored:
                stored[name] = numpy_helper.from_array(value, name)
                model.graph.initializer.append(stored[name])
            node.input[position] = name
        changed += 1
    if changed:
        _drop_unused(model)
        del model.graph.value_info[:]  # types of the changed tensors are stale
    return changed


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {value for node in model.graph.node for value in node.input} | {o.name for o in model.graph.output}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def check_symmetric_int8(model: onnx.ModelProto) -> int:
    """The number of Q and DQ nodes, after checking that each is int8 with stored zero-points that are all 0.

    Raises:
        RequestError: names the first node that is not.
    """
    stored = _stored(model)
    nodes = [n for n in model.graph.node if n.op_type in QDQ]
    for node in nodes:
        zero = stored.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            raise RequestError(f"{node.name}: its zero-point is not stored in the file; TensorRT needs an int8 zero")
        values = numpy_helper.to_array(zero)
        if zero.data_type != TensorProto.INT8 or values.any():
            kind = TensorProto.DataType.Name(zero.data_type).lower()
            raise RequestError(
                f"{node.name}: TensorRT needs int8 with zero-point 0, this one is {kind} with "
                f"zero-points {values.min()} to {values.max()}"
            )
    return len(nodes)
