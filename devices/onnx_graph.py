"""An ONNX graph as the fused kernels a runtime would launch: class, multiply-accumulates and bytes moved per kernel.

Pointwise operations are fused into the kernel that makes their input, quantize/dequantize pairs give the precision,
attention's softmax is part of the attention, and reshapes cost nothing. Shapes come from shape inference; where that
leaves holes, from the graph with its constants folded by ONNX Runtime.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rsedge.data.errors import RequestError, missing_extra

KernelClass = Literal["conv", "depthwise", "matmul", "attention", "memory"]

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger"})
FREE = frozenset(
    [
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Constant",
        "ConstantOfShape",
        "Shape",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "Expand",
        "Range",
        "Size",
        "Dropout",
    ]
)
MEMORY = frozenset(
    [
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Resize",
        "Upsample",
        "Softmax",
        "LogSoftmax",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL2",
        "ArgMax",
        "TopK",
        "Pad",
        "GridSample",
        "DepthToSpace",
        "SpaceToDepth",
        "CumSum",
        "ScatterND",
        "GatherND",
        "GatherElements",
        "Tile",
        "Einsum",
    ]
)


@dataclass
class Kernel:
    """One launch: ``macs``, elements read and written (activations), weight elements, and whether it is int8."""

    name: str
    op: str
    kind: KernelClass
    macs: int
    read: int
    weights: int
    written: int
    quantized: bool = False
    fused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GraphCost:
    """The kernels of a graph, whether it holds quantize/dequantize pairs, and the operations it uses with counts."""

    kernels: list[Kernel]
    explicit_int8: bool
    ops: dict[str, int]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference at the graph's own input shape."""
        return sum(k.macs for k in self.kernels)


def count_macs(onnx_path: str | Path) -> int:
    """Multiply-accumulates of convolutions and matrix products for one inference of an ONNX file.

    Raises:
        RequestError: no such file, not an ONNX model, or shapes that depend on the input.
        MissingCapability: the Python module onnx is not installed.
    """
    return graph_cost(onnx_path).macs


def graph_cost(onnx_path: str | Path) -> GraphCost:
    """Reads an ONNX file and works out its fused kernels; errors as in :func:`count_macs`."""
    walker = _Walker(_load(Path(onnx_path)))
    if walker.holes():
        walker = _Walker(_folded(Path(onnx_path)))
    if holes := walker.holes():
        raise RequestError(
            f"{onnx_path}: the shape of {', '.join(holes[:3])} is not known; export with a fixed input shape"
        )
    return walker.cost()


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise missing_extra("onnx", "compress", "predicting latency or counting MACs") from error
    return onnx


def _load(path: Path) -> Any:
    onnx = _onnx()
    if not path.is_file():
        raise RequestError(f"{path}: no such ONNX file")
    try:
        model = onnx.load(str(path), load_external_data=False)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, RuntimeError, onnx.onnx_cpp2py_export.shape_inference.InferenceError) as error:
        raise RequestError(f"{path}: not a readable ONNX model ({str(error).splitlines()[0]})") from error
    except _decode_error() as error:
        raise RequestError(f"{path}: not an ONNX model, or cut short ({error})") from error


def _decode_error() -> type[Exception]:
    """Protobuf's error for bytes that are no message (protobuf comes with onnx)."""
    error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    return error


def _folded(path: Path) -> Any:
    """The graph with constants folded by ONNX Runtime, shapes inferred again."""
    try:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", "onnxruntime", f"{path}: folding its constants") from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented) as error:
            raise RequestError(f"{path}: ONNX Runtime cannot fold its constants: {error}") from error
        return _load(Path(options.optimized_model_filepath))


class _Walker:
    """One pass over the nodes in topological order, growing kernels."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.shapes = self._known_shapes()
        self.constants = {t.name for t in self.graph.initializer} | {
            t.values.name for t in self.graph.sparse_initializer
        }
        self.maker: dict[str, Any] = {o: n for n in self.graph.node for o in n.output}
        self.users: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self._spread_constants()

    def _known_shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in self.graph.initializer}
        for value in [*self.graph.input, *self.graph.output, *self.graph.value_info]:
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                found[value.name] = tuple(d.dim_value for d in kind.shape.dim)
        return found

    def _spread_constants(self) -> None:
        """A node whose inputs are all constant gives a constant (dequantized weights, for one)."""
        for node in self.graph.node:
            inputs = [i for i in node.input if i]
            if node.op_type == "Constant" or (inputs and all(i in self.constants for i in inputs)):
                self.constants.update(node.output)

    def holes(self) -> list[str]:
        """Heavy nodes whose shapes are not all known."""
        return [
            node.name or node.op_type
            for node in self.graph.node
            if node.op_type in HEAVY and not all(n in self.shapes for n in [*node.input[:2], node.output[0]])
        ]

    def size(self, name: str) -> int:
        return math.prod(self.shapes.get(name, (0,)))

    def cost(self) -> GraphCost:
        kernels: list[Kernel] = []
        owner: dict[str, Kernel] = {}
        for node in self.graph.node:
            if all(o in self.constants for o in node.output):
                continue
            inputs = [i for i in node.input if i and i not in self.constants]
            kernel = self._kernel_for(node, inputs, owner)
            if kernel is None:
                kernel = self._fuse(node, inputs, owner)
            elif kernel.name:
                kernels.append(kernel)
            for name in node.output:
                owner[name] = kernel
        ops: dict[str, int] = {}
        for node in self.graph.node:
            ops[node.op_type] = ops.get(node.op_type, 0) + 1
        kept = [k for k in kernels if k.macs or k.read or k.written]
        return GraphCost(kept, "DequantizeLinear" in ops or "QLinearConv" in ops, ops)

    def _kernel_for(self, node: Any, inputs: list[str], owner: dict[str, Kernel]) -> Kernel | None:
        """A new kernel for a node that starts one, or None where the node is fused into what makes its input."""
        if node.op_type in HEAVY:
            return self._heavy(node, inputs)
        if node.op_type in MEMORY and not self._in_attention(node):
            return self._memory(node, inputs)
        if node.op_type in FREE or any(i in owner for i in inputs):
            return None
        return self._memory(node, inputs)

    def _fuse(self, node: Any, inputs: list[str], owner: dict[str, Kernel]) -> Kernel:
        own = [i for i in inputs if i in owner]
        if not own:
            return Kernel("", node.op_type, "memory", 0, 0, 0, 0)
        main = max(own, key=self.size)
        kernel = owner[main]
        if node.op_type in FREE or not kernel.name:
            return kernel
        kernel.fused.append(node.op_type)
        kernel.read += sum(self.size(i) for i in inputs if i in self.shapes and owner.get(i) is not kernel)
        kernel.written = max(kernel.written, self.size(node.output[0])) if kernel.kind != "memory" else kernel.written
        return kernel

    def _memory(self, node: Any, inputs: list[str]) -> Kernel:
        read, written = sum(map(self.size, inputs)), sum(map(self.size, node.output))
        return Kernel(node.name or node.op_type, node.op_type, "memory", 0, read, 0, written, self._int8_input(inputs))

    def _in_attention(self, node: Any) -> bool:
        if node.op_type != "Softmax":
            return False
        return any(self._leads_to_matmul(user) for user in self.users.get(node.output[0], []))

    def _leads_to_matmul(self, node: Any) -> bool:
        if node.op_type in ("Cast", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear"):
            return any(self._leads_to_matmul(user) for user in self.users.get(node.output[0], []))
        return bool(node.op_type == "MatMul")

    def _int8_input(self, inputs: list[str]) -> bool:
        makers = [self.maker[i] for i in inputs if i in self.maker]
        return any(m.op_type in ("DequantizeLinear", "QuantizeLinear") for m in makers)

    def _heavy(self, node: Any, inputs: list[str]) -> Kernel:
        first, second = node.input[0], self._weight_name(node)
        constant = second in self.constants
        kind: KernelClass = "matmul" if constant else "attention"
        macs = self._matmul_macs(node)
        if "Conv" in node.op_type:
            kind, macs = self._conv(node, second)
        weights = self.size(second) if constant else 0
        read = self.size(first) + (0 if constant else self.size(second))
        quantized = self._int8_input(inputs) or node.op_type.startswith("QLinear")
        return Kernel(
            node.name or node.output[0], node.op_type, kind, macs, read, weights, self.size(node.output[0]), quantized
        )

    @staticmethod
    def _weight_name(node: Any) -> str:
        return str(node.input[3] if node.op_type.startswith("QLinear") else node.input[1])

    def _conv(self, node: Any, weight: str) -> tuple[KernelClass, int]:
        groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
        kernel = self.shapes[weight]
        if node.op_type == "ConvTranspose":
            positions, channels_in = self.size(node.input[0]), kernel[0]
            macs = positions * kernel[1] * math.prod(kernel[2:])
        else:
            positions, channels_in = self.size(node.output[0]), kernel[1] * groups
            macs = positions * kernel[1] * math.prod(kernel[2:])
        return ("depthwise" if groups > 1 and groups == channels_in else "conv"), macs

    def _matmul_macs(self, node: Any) -> int:
        if "Conv" in node.op_type:
            return 0
        left = self.shapes[node.input[0]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        inner = left[0] if transposed else left[-1]
        return self.size(node.output[0]) * inner
