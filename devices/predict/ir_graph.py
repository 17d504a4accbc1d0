"""An OpenVINO IR as the ONNX graph of the same kernels, without weights: a bundle for OpenVINO holds what a prediction needs.

The file is read as the XML it is: every layer says its type, its settings and the shapes of what goes in and out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rsedge.data.errors import RequestError, missing_extra

Layer = ElementTree.Element
Port = tuple[str, str]
Step = tuple[str, list[str], list[str], dict[str, int]]
"""An operation: its name, what it reads, what it gives, its settings."""
MAX_BYTES = 256 << 20
# fmt: off
NAMES = {
    "Const": "Constant", "ShapeOf": "Shape", "Convert": "Cast", "Convolution": "Conv", "GroupConvolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose", "GroupConvolutionBackpropData": "ConvTranspose", "AvgPool": "AveragePool",
    "AdaptiveAvgPool": "GlobalAveragePool", "Interpolate": "Resize", "SoftMax": "Softmax", "MVN": "LayerNormalization",
    "StridedSlice": "Slice", "VariadicSplit": "Split", "Broadcast": "Expand", "ScatterNDUpdate": "ScatterND",
    "FakeQuantize": "DequantizeLinear", "ReLU": "Relu", "HSwish": "HardSwish", "HSigmoid": "HardSigmoid", "SoftPlus": "Softplus",
    "Multiply": "Mul", "Subtract": "Sub", "Divide": "Div", "Power": "Pow", "Select": "Where", "Clamp": "Clip",
}
# fmt: on
"""Types of layers under ONNX's names, where they are called otherwise. What rounds stands for quantize and dequantize."""
NOT_COUNTED = frozenset(["TensorIterator", "Loop", "If", "LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell",
                         "RNNCell"])  # fmt: skip
"""Layers with products inside."""
PRODUCTS = ("Conv", "ConvTranspose", "MatMul")
GROUPED = ("GroupConvolution", "GroupConvolutionBackpropData")


def onnx_of(path: Path) -> Any:
    """An IR's graph as an ``onnx.ModelProto`` of float tensors, in an order in which it runs.

    Raises:
        RequestError: no such file, no IR, shapes that are not fixed, or layers whose products are not counted.
        MissingCapability: the Python module onnx is not installed.
    """
    try:
        from onnx import helper
    except ModuleNotFoundError as error:
        raise missing_extra("onnx", "compress", "predicting latency or counting MACs") from error
    layers, makers = _read(path)
    shapes: dict[str, tuple[int, ...]] = {}
    ends: dict[str, list[str]] = {"Parameter": [], "Result": []}
    nodes: list[Any] = []
    fixed: set[str] = set()
    read = {_value(port) for port in makers.values()}
    done = list(_in_order(layers, makers))
    for layer in done:
        kind, number = layer.get("type", ""), layer.get("id", "")
        if kind in NOT_COUNTED:
            raise RequestError(
                f"{path}: products inside its {kind} ('{layer.get('name')}') are not counted; give the model as ONNX"
            )
        given = [_value(makers[number, port.get("id", "")]) for port in layer.findall("input/port")]
        made = {
            _value((number, port.get("id", ""))): _shape(path, layer, port) for port in layer.findall("output/port")
        }
        shapes |= made
        if kind in ends:
            ends[kind] += made or given
            continue
        used = [name for name in made if name in read]  # poolings give places too, which most graphs have no use for
        steps = (
            [("Identity", given, used, {})]
            if _is_bias(kind, given, nodes, fixed)
            else _steps(layer, given, used, shapes)
        )
        nodes += [helper.make_node(op, reads, gives, layer.get("name"), **more) for op, reads, gives, more in steps]
        if all(name in fixed for name in given):
            fixed |= set(made)
    if len(done) < len(layers):
        raise RequestError(f"{path}: no OpenVINO IR: its layers wait for each other in a circle")
    values = {name: helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    inputs, outputs = ([values[name] for name in names] for names in ends.values())
    return helper.make_model(helper.make_graph(nodes, path.stem, inputs, outputs, value_info=list(values.values())))


def _read(path: Path) -> tuple[dict[str, Layer], dict[Port, Port]]:
    """Layers by number, and where what goes into each comes from.

    Raises:
        RequestError: no such file, or no IR.
    """
    try:
        if path.stat().st_size > MAX_BYTES or b"<!DOCTYPE" in (text := path.read_bytes()):
            raise RequestError(f"{path}: no OpenVINO IR (larger than any, or with a document type)")
        root = ElementTree.fromstring(text)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise RequestError(f"{path}: no OpenVINO IR, or cut short ({error})") from error
    layers = {layer.get("id", ""): layer for layer in root.findall("layers/layer")}
    makers = {
        (edge.get("to-layer", ""), edge.get("to-port", "")): (edge.get("from-layer", ""), edge.get("from-port", ""))
        for edge in root.findall("edges/edge")
    }
    lost = [
        port
        for number, layer in layers.items()
        for port in _inputs(number, layer)
        if makers.get(port, ("",))[0] not in layers
    ]
    if not layers or lost:
        raise RequestError(
            f"{path}: no whole OpenVINO IR ({'no layers' if not layers else f'nothing goes into layer {lost[0][0]}'})"
        )
    return layers, makers


def _inputs(number: str, layer: Layer) -> list[Port]:
    return [(number, port.get("id", "")) for port in layer.findall("input/port")]


def _in_order(layers: dict[str, Layer], makers: dict[Port, Port]) -> Iterator[Layer]:
    """Each layer after those that it reads; what waits for itself never comes."""
    waits = {number: {makers[port][0] for port in _inputs(number, layer)} for number, layer in layers.items()}
    readers: dict[str, list[str]] = {}
    for number, others in waits.items():
        for other in others:
            readers.setdefault(other, []).append(number)
    ready = [number for number, others in waits.items() if not others]
    for number in ready:
        yield layers[number]
        for reader in readers.get(number, ()):
            waits[reader].discard(number)
            if not waits[reader]:
                ready.append(reader)


def _is_bias(kind: str, given: list[str], nodes: list[Any], fixed: set[str]) -> bool:
    """Whether a layer adds constants to what the layer just before it gives, a product: ONNX has them in the product."""
    if kind != "Add" or len([name for name in given if name in fixed]) != 1:
        return False
    last = next((node for node in reversed(nodes) if not set(node.output) <= fixed), None)
    return last is not None and last.op_type in PRODUCTS and last.output[0] in given


def _steps(layer: Layer, given: list[str], made: list[str], shapes: dict[str, tuple[int, ...]]) -> Iterator[Step]:
    """A layer as ONNX's operations; adds the shapes of what lies between them."""
    kind = layer.get("type", "")
    if kind == "ScaledDotProductAttention":
        (queries, keys, values), out = given[:3], made[0]
        scores, shares = f"{out} scores", f"{out} shares"
        shapes[scores] = shapes[shares] = (*shapes[queries][:-1], shapes[keys][-2])
        yield "MatMul", [queries, keys], [scores], {}
        yield "Softmax", [scores, *given[3:]], [shares], {}
        yield "MatMul", [shares, values], made, {}
    elif (
        kind in GROUPED
    ):  # weights (groups, outputs, inputs, ...) of a group, those of inputs first where it is transposed
        weights = f"{given[1]} of all groups"
        groups, *shape = shapes[given[1]]
        shapes[weights] = (groups * shape[0], *shape[1:])
        yield "Reshape", [given[1]], [weights], {}
        yield NAMES[kind], [given[0], weights, *given[2:]], made, {"group": groups}
    else:
        data = layer.find("data")
        turned = data is not None and data.get("transpose_a") in ("true", "1")
        yield NAMES.get(kind, kind), given, made, {"transA": 1} if turned else {}


def _value(port: Port) -> str:
    return ":".join(port)


def _shape(path: Path, layer: Layer, port: Layer) -> tuple[int, ...]:
    sizes = [dim.text or "" for dim in port.findall("dim")]
    if not all(size.isdigit() for size in sizes):
        raise RequestError(
            f"{path}: the shape of '{layer.get('name')}' is not fixed; give it one before it is predicted"
        )
    return tuple(map(int, sizes))
