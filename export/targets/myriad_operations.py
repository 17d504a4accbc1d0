"""What the Myriad plugin of OpenVINO 2022.3 accepts, so that a graph is refused by the names of its operations.

No VPU and no MYRIAD plugin is needed to know it. Facts read in that release's public sources: the layer types its front end
parses (``intel_myriad/graph_transformer/src/frontend/frontend.cpp``), the element types its element-wise and conversion
stages take (``stages/eltwise.cpp``, ``convert.cpp``), its resize modes (``stages/interpolate.cpp``), and which operations
the common and legacy passes rewrite into those layers before (``common_optimizations.cpp``,
``convert_opset1_to_legacy.cpp``). Sizes that exceed the VPU's memory are only found by ``compile_tool``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ACTIVATIONS = {
    *(
        "Abs",
        "Ceiling",
        "Clamp",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HSwish",
        "Log",
        "Mish",
        "PRelu",
        "Relu",
        "Round",
    ),
    *("Sigmoid", "Softmax", "SoftPlus", "Sqrt", "Swish", "Tanh"),
}
_LAYERS = {
    *("AvgPool", "Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData", "LRN"),
    *("LSTMCell", "LSTMSequence", "MVN", "MatMul", "MaxPool", "NormalizeL2", "Parameter", "ROIAlign", "TopK"),
}
_SHAPES = {
    *("Broadcast", "Concat", "Gather", "GatherElements", "GatherND", "OneHot", "Pad", "Reshape", "ReverseSequence"),
    *("ScatterElementsUpdate", "ScatterUpdate", "Slice", "Split", "Squeeze", "StridedSlice", "Tile", "Transpose"),
    *("Unsqueeze", "VariadicSplit"),
}
_REDUCTIONS = {"ReduceL1", "ReduceL2", "ReduceLogicalAnd", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
_REWRITTEN = {
    *("BatchNormInference", "DepthToSpace", "Einsum", "HSigmoid", "LogSoftmax", "Mod", "Negative", "SpaceToDepth"),
}
_BY_TYPE = {"Convert", "Interpolate", "Select"}
_ON_FLOATS = {
    *("Add", "Divide", "Equal", "FloorMod", "Greater", "Less", "Maximum", "Minimum", "Multiply", "Power"),
    *("SquaredDifference", "Subtract"),
}
_ON_INTEGERS = {
    *(
        "Add",
        "Divide",
        "Equal",
        "GreaterEqual",
        "LogicalAnd",
        "LogicalNot",
        "Maximum",
        "Minimum",
        "Multiply",
        "Subtract",
    ),
}
_ELEMENTWISE = _ON_FLOATS | _ON_INTEGERS | {"LessEqual", "LogicalOr", "LogicalXor", "NotEqual"}
_KNOWN = _ACTIVATIONS | _LAYERS | _SHAPES | _REDUCTIONS | _REWRITTEN | _BY_TYPE

_FLOATS = {"f32", "f16"}
_INTEGERS = {"boolean", "i32", "i64", "u32", "u64"}
"""The plugin turns all of these into i32."""
_INPUTS = _FLOATS | {"u8", "i32"}
_RESIZES = ("nearest", "linear", "linear_onnx")


def unsupported(operations: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the VPU lacks, each as ``Type 'name' (reason)``, in the order of the graph.

    Args:
        operations: as :func:`rsedge.runtimes.myriad.process.convert` gives them.
    """
    found = []
    for operation in operations:
        if reason := _reason(operation):
            found.append(f"{operation['type']} '{operation['name']}' ({reason})")
    return found


def _reason(operation: Mapping[str, Any]) -> str | None:
    kind, inputs, outputs = operation["type"], operation["inputs"], operation["outputs"]
    if kind in _ELEMENTWISE:
        return _elementwise(kind, inputs[0])
    if kind not in _KNOWN:
        return "the VPU has no such operation"
    if kind == "Parameter" and outputs[0] not in _INPUTS:
        return f"inputs can be f32, f16, u8 or i32, not {outputs[0]}"
    if kind == "Convert" and not _converts(inputs[0], outputs[0]):
        return f"no conversion from {inputs[0]} to {outputs[0]}"
    return _resize(operation["attributes"]) if kind == "Interpolate" else None


def _elementwise(kind: str, element: str) -> str | None:
    allowed = _ON_FLOATS if element in _FLOATS else _ON_INTEGERS if element in _INTEGERS else set()
    return None if kind in allowed else f"not on {element} tensors"


def _converts(source: str, target: str) -> bool:
    if source in _FLOATS:
        return target in _FLOATS | _INTEGERS
    if source in _INTEGERS:
        return target in _FLOATS | _INTEGERS | {"u8"}
    return source == "u8" and target in _FLOATS


def _resize(attributes: Mapping[str, Any]) -> str | None:
    mode = attributes.get("mode")
    if mode not in _RESIZES:
        return f"resizing by '{mode}'; it has {', '.join(_RESIZES)}"
    padded = any(attributes.get("pads_begin", ())) or any(attributes.get("pads_end", ()))
    return "resizing with padding" if padded else None
