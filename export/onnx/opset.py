"""Lowering an ONNX graph to an older opset, for TensorRT 8 and OpenVINO 2022.

The torch exporter writes opset 18 or later; older parsers read 17 (TensorRT 8.5-8.6) or 13 (8.2). Each operator whose
definition changed in between has its own rewrite here; one without a rewrite is refused by name rather than guessed at.
Definitions: the ONNX operator schemas of both versions (``onnx.defs``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rsedge.data.errors import RequestError

OLDEST, EXPORTED, NEWEST = 13, 18, 21
_IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
# Only further element types or a new mode that this project never uses came with the newer definition.
_SAME_MEANING = {
    *("Add", "Sub", "Mul", "Div", "Relu", "Identity", "Where", "LeakyRelu", "PRelu", "BatchNormalization"),
    *("ScatterND", "ScatterElements", "GreaterOrEqual", "LessOrEqual", "CumSum"),
}


def check_opset(opset: int) -> None:
    """Raises :class:`RequestError` for an opset that cannot be written."""
    if not OLDEST <= opset <= NEWEST:
        raise RequestError(f"ONNX opset {opset} is not supported; choose one from {OLDEST} to {NEWEST}")


def set_versions(model: onnx.ModelProto, opset: int) -> None:
    """Stamps the opset and the oldest file format version that knows it."""
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset)])
    model.ir_version = _IR_VERSIONS[opset]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that the model uses."""
    return next((int(i.version) for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)


def lower(model: onnx.ModelProto, opset: int) -> None:
    """Rewrites ``model`` in place from opset 18 to ``opset`` (13 to 17).

    Raises:
        RequestError: an operator has no equivalent there; names all such operators.
    """
    graph = model.graph
    constants = Constants(graph)
    nodes, refused = [], set()
    for node in graph.node:
        if since(node, EXPORTED) <= opset or node.op_type in _SAME_MEANING:
            nodes.append(node)
        elif rewrite := _REWRITES.get(node.op_type):
            nodes.extend(rewrite(node, constants))
        else:
            refused.add(node.op_type)
    if refused:
        raise RequestError(
            f"opset {opset} has no {', '.join(sorted(refused))}; use opset {EXPORTED} (TensorRT 10 or later), "
            "or a network without it"
        )
    del graph.node[:]
    graph.node.extend(nodes)
    set_versions(model, opset)
    drop_unused_initializers(graph)


def since(node: onnx.NodeProto, opset: int) -> int:
    """The opset in which the definition of ``node`` valid at ``opset`` came in."""
    return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)


class Constants:
    """The graph's constant tensors, and new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self._known = {i.name: i for i in graph.initializer}

    def get(self, name: str, where: str) -> np.ndarray:
        """Value of the constant ``name``; :class:`RequestError` if it is computed at run time."""
        if name not in self._known:
            raise RequestError(f"{where}: '{name}' must be constant to lower the opset")
        value: np.ndarray = numpy_helper.to_array(self._known[name])
        return value

    def add(self, name: str, value: np.ndarray) -> str:
        if name not in self._known:
            self._known[name] = numpy_helper.from_array(value, name)
            self.graph.initializer.append(self._known[name])
        return name


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Removes constants that no node reads."""
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _drop(node: onnx.NodeProto, names: Iterable[str]) -> None:
    gone = set(names)
    kept = [a for a in node.attribute if a.name not in gone]
    del node.attribute[:]
    node.attribute.extend(kept)


def _attribute(node: onnx.NodeProto, name: str, default: int | float) -> int | float:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _reduce(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """Axes: an input since 18, an attribute before."""
    if len(node.input) > 1 and node.input[1]:
        axes = constants.get(node.input[1], node.name)
        node.attribute.append(helper.make_attribute("axes", [int(a) for a in axes.ravel()]))
    elif _attribute(node, "noop_with_empty_axes", 0):
        return [helper.make_node("Identity", [node.input[0]], list(node.output), name=node.name)]
    del node.input[1:]
    _drop(node, ["noop_with_empty_axes"])
    return [node]


def _split(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """``num_outputs`` came with 18; without it equal parts need no sizes at all."""
    _drop(node, ["num_outputs"])
    return [node]


def _resize(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    if _attribute(node, "antialias", 0):
        raise RequestError(f"{node.name}: Resize with antialiasing needs opset 18")
    _drop(node, ["antialias", "axes", "keep_aspect_ratio_policy"])
    return [node]


def _pad(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    if len(node.input) > 3 and node.input[3]:
        raise RequestError(f"{node.name}: Pad with axes needs opset 18")
    del node.input[3:]
    return [node]


def _reshape(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    _drop(node, ["allowzero"])
    return [node]


def _hard_swish(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    x, gate = node.input[0], f"{node.name}/gate"
    return [
        helper.make_node("HardSigmoid", [x], [gate], name=f"{node.name}/HardSigmoid", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [x, gate], list(node.output), name=f"{node.name}/Mul"),
    ]


def _mish(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    x, name = node.input[0], node.name
    return [
        helper.make_node("Softplus", [x], [f"{name}/s"], name=f"{name}/Softplus"),
        helper.make_node("Tanh", [f"{name}/s"], [f"{name}/t"], name=f"{name}/Tanh"),
        helper.make_node("Mul", [x, f"{name}/t"], list(node.output), name=f"{name}/Mul"),
    ]


def _layer_norm(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` over the last axis, in float32."""
    if _attribute(node, "axis", -1) != -1 or len(node.output) > 1:
        raise RequestError(f"{node.name}: LayerNormalization over several axes needs opset 17")
    name, x = node.name, node.input[0]
    epsilon = constants.add(f"{name}/epsilon", np.array(_attribute(node, "epsilon", 1e-5), np.float32))
    steps: list[tuple[str, list[str], str, dict[str, object]]] = [
        ("ReduceMean", [x], "mean", {"axes": [-1], "keepdims": 1}),
        ("Sub", [x, f"{name}/mean"], "centred", {}),
        ("Mul", [f"{name}/centred", f"{name}/centred"], "square", {}),
        ("ReduceMean", [f"{name}/square"], "variance", {"axes": [-1], "keepdims": 1}),
        ("Add", [f"{name}/variance", epsilon], "safe", {}),
        ("Sqrt", [f"{name}/safe"], "deviation", {}),
        ("Div", [f"{name}/centred", f"{name}/deviation"], "unit", {}),
        ("Mul", [f"{name}/unit", node.input[1]], "scaled", {}),
    ]
    if len(node.input) > 2 and node.input[2]:
        steps.append(("Add", [f"{name}/scaled", node.input[2]], "shifted", {}))
    nodes = [helper.make_node(op, i, [f"{name}/{o}"], name=f"{name}/{o}_{op}", **a) for op, i, o, a in steps]
    nodes[-1].output[0] = node.output[0]
    return nodes


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_REWRITES: dict[str, Callable[[onnx.NodeProto, Constants], list[onnx.NodeProto]]] = {
    **{f"Reduce{kind}": _reduce for kind in _REDUCTIONS},
    "Split": _split,
    "Resize": _resize,
    "Pad": _pad,
    "Reshape": _reshape,
    "HardSwish": _hard_swish,
    "Mish": _mish,
    "LayerNormalization": _layer_norm,
}
