"""An ONNX graph as the fused kernels a runtime would launch: class, multiply-accumulates and bytes moved per kernel.

Pointwise operations are fused into the kernel that makes their input (not where another kernel must come between, as in
squeeze-and-excite), quantize/dequantize pairs give the precision, attention's softmax is part of the attention, and
reshapes cost nothing. Shapes come from shape inference; where that leaves holes, from the graph with its constants
folded by ONNX Runtime.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.predict.ir_graph import onnx_of
from rsedge.runtimes.child import Contents
from rsedge.runtimes.onnxruntime.core import CPU, created
from rsedge.runtimes.rehearsal import rehearse

KernelClass = Literal["conv", "depthwise", "matmul", "attention", "memory", "move"]

HEAVY = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger"])
"""Operations with multiply-accumulates."""
# fmt: off
VIEW = frozenset([
    "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Constant", "ConstantOfShape", "Shape", "Range",
    "Size", "Dropout",
])
# fmt: on
"""Operations that move nothing: another view of the same buffer, or known before the run."""
# fmt: off
MOVE = frozenset([
    "Transpose", "Slice", "Split", "Concat", "Gather", "Expand", "Pad", "DepthToSpace", "SpaceToDepth", "Tile",
    "GatherND", "GatherElements", "ScatterND",
])
# fmt: on
"""Operations that only copy; a runtime leaves some of them out."""
# fmt: off
MEMORY = frozenset([
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample", "Softmax", "LogSoftmax",
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "ReduceMean", "ReduceSum", "ReduceMax",
    "ReduceMin", "ReduceProd", "ReduceL2", "ArgMax", "TopK", "GridSample", "CumSum", "Einsum",
])
# fmt: on
"""Operations that read and write whole tensors and compute little."""

IR = ".xml"
GRAPHS = (".onnx", IR)
"""Files that a graph can be read from."""
FLOATS = frozenset({1, 10, 11, 16})
"""ONNX numbers of the types float, float16, double and bfloat16."""


@dataclass
class Kernel:
    """One launch. Counts are elements, not bytes.

    ``read`` and ``written`` are activations, ``weights`` constants. The product behind ``macs`` has ``columns`` output
    channels (of one group), reduces over ``depth`` products, and gives ``rows`` x ``columns`` x groups outputs.
    """

    name: str
    op: str
    kind: KernelClass
    macs: int
    read: int
    weights: int
    written: int
    quantized: bool = False
    columns: int = 1
    depth: int = 1
    fused: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        """Elements that the product gives."""
        return self.macs // self.depth


@dataclass(frozen=True)
class GraphCost:
    """The kernels of a graph, whether it holds quantize/dequantize pairs, and the operations it uses with counts.

    ``peak_live`` is the most activation elements alive at once when every kernel's output has its own buffer until its
    last reader is done; ``io`` the elements of the graph's inputs and outputs.
    """

    kernels: list[Kernel]
    explicit_int8: bool
    ops: dict[str, int]
    peak_live: int
    io: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference at the graph's own input shape."""
        return sum(k.macs for k in self.kernels)

    @property
    def weights(self) -> int:
        """Elements of all weights of products."""
        return sum(k.weights for k in self.kernels)


@dataclass(frozen=True)
class Operation:
    """One node that computes; ``inside``: a product, or between products (one before it and one after it)."""

    name: str
    op: str
    inside: bool


def operations(onnx_path: str | Path) -> list[Operation]:
    """The nodes of an ONNX file that depend on its input, in order; errors as in :func:`count_macs`."""
    walker = _Walker(_load(Path(onnx_path)))
    nodes = [n for n in walker.graph.node if not all(o in walker.constants for o in n.output)]
    after: set[str] = set()
    before: set[str] = set()
    for node in nodes:
        if node.op_type in HEAVY or any(i in after for i in node.input):
            after.update(node.output)
    for node in reversed(nodes):
        if node.op_type in HEAVY or any(o in before for o in node.output):
            before.update(i for i in node.input if i)
    return [Operation(n.name or n.output[0], n.op_type, _inside(n, after, before)) for n in nodes]


def _inside(node: Any, after: set[str], before: set[str]) -> bool:
    return node.op_type in HEAVY or (any(i in after for i in node.input) and any(o in before for o in node.output))


def count_macs(onnx_path: str | Path, input_shape: Sequence[int] | None = None) -> int:
    """Multiply-accumulates of convolutions and matrix products for one inference of an ONNX file.

    ``input_shape`` takes the place of free sizes of its only input.

    Raises:
        RequestError: no such file, not an ONNX model, or shapes that depend on the input.
        MissingCapability: the Python module onnx is not installed.
    """
    return graph_cost(onnx_path, input_shape).macs


def foreign(onnx_path: str | Path) -> Path:
    """The path of an ONNX file that somebody else made: what reads it is not Python, and a file may be made to end that. So a
    process of its own reads it first.

    Raises:
        RequestError: it ended that process, came to no end, or as :func:`count_macs`.
    """
    path = Path(onnx_path)
    if path.is_file() and path.suffix != IR:  # which Python itself reads
        status = path.stat()
        rehearse(path, f"{__name__}:answer", [str(path), status.st_size, status.st_mtime_ns])
    return path


def answer(question: list[Any], contents: Contents) -> int:
    """The child's side of :func:`foreign`."""
    return graph_cost(question[0]).macs


def graph_cost(path: str | Path, input_shape: Sequence[int] | None = None) -> GraphCost:
    """Fused kernels of an ONNX file or an OpenVINO IR (.xml); arguments and errors as in :func:`count_macs`."""
    onnx_path = Path(path)
    if onnx_path.suffix == IR:
        return _Walker(onnx_of(onnx_path)).cost()
    walker = _Walker(_load(Path(onnx_path), input_shape))
    if walker.holes():
        walker = _Walker(_folded(Path(onnx_path), input_shape))
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


def _load(path: Path, input_shape: Sequence[int] | None = None) -> Any:
    onnx = _onnx()
    if not path.is_file():
        raise RequestError(f"{path}: no such ONNX file")
    try:
        model = onnx.load(str(path), "protobuf", load_external_data=False)
        _drop_weights(model)
        if input_shape is not None:
            _fix_shape(model, input_shape)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, RuntimeError, onnx.onnx_cpp2py_export.shape_inference.InferenceError) as error:
        raise RequestError(f"{path}: not a readable ONNX model ({str(error).splitlines()[0]})") from error
    except _decode_error() as error:
        raise RequestError(f"{path}: not an ONNX model, or cut short ({error})") from error


def _fix_shape(model: Any, shape: Sequence[int]) -> None:
    """Gives the only input its shape; what was noted of the others with free sizes is worked out anew."""
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _drop_weights(model: Any) -> None:
    """Empties the float weights: shapes do not depend on their values, and shape inference copies the model."""
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and math.prod(tensor.dims) > 64:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")


def _decode_error() -> type[Exception]:
    """Protobuf's error for bytes that are no message (protobuf comes with onnx)."""
    error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    return error


def _folded(path: Path, input_shape: Sequence[int] | None = None) -> Any:
    """The graph with constants folded by ONNX Runtime, shapes inferred again."""
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", "onnxruntime", f"{path}: folding its constants") from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with TemporaryFolder() as folder:
        options.optimized_model_filepath = str(folder / "folded.onnx")
        created(ort, path, options, [CPU])
        return _load(Path(options.optimized_model_filepath), input_shape)


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
        """A node whose inputs are all constant gives a constant (dequantized weights, for one); so do known shapes."""
        for node in self.graph.node:
            inputs = [i for i in node.input if i]
            known = node.op_type in ("Constant", "Shape", "Size")
            if known or (inputs and all(i in self.constants for i in inputs)):
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
        owner: dict[str, int] = {}
        last_use: dict[int, int] = {}
        for node in self.graph.node:
            if all(o in self.constants for o in node.output):
                continue
            inputs = [i for i in node.input if i and i not in self.constants]
            made_by = self._place(node, inputs, owner, kernels)
            for name in inputs:
                if name in owner:
                    last_use[owner[name]] = max(made_by, last_use.get(owner[name], 0))
            for name in node.output:
                owner[name] = made_by
        ops: dict[str, int] = {}
        for node in self.graph.node:
            ops[node.op_type] = ops.get(node.op_type, 0) + 1
        explicit = "DequantizeLinear" in ops or "QLinearConv" in ops
        for value in self.graph.output:
            last_use[owner.get(value.name, -1)] = len(kernels)
        kept = [k for k in kernels if k.macs or k.read or k.written]
        return GraphCost(kept, explicit, ops, _peak_live(kernels, last_use), self._io())

    def _io(self) -> int:
        own = [v.name for v in self.graph.input if v.name not in self.constants]
        return sum(map(self.size, [*own, *(v.name for v in self.graph.output)]))

    def _place(self, node: Any, inputs: list[str], owner: dict[str, int], kernels: list[Kernel]) -> int:
        """Index of the kernel that does a node: an earlier one it is fused into, or a new one; -1 for graph inputs."""
        own = [i for i in inputs if i in owner]
        if node.op_type in VIEW:
            return owner[own[0]] if own else -1
        if node.op_type in HEAVY:
            kernels.append(self._heavy(node, inputs))
        elif (at := self._fusable(node, own, owner, kernels)) is not None:
            self._fuse(kernels[at], node, [i for i in inputs if owner.get(i) != at])
            return at
        else:
            kernels.append(self._memory(node, inputs))
        return len(kernels) - 1

    def _fusable(self, node: Any, own: list[str], owner: dict[str, int], kernels: list[Kernel]) -> int | None:
        """The kernel a node can be part of: the last one it waits for, where that makes a tensor of the same size."""
        starts = node.op_type in MOVE or (node.op_type in MEMORY and not self._in_attention(node))
        waits = [i for i in own if owner[i] >= 0]
        if starts or not waits:
            return None
        last = max(waits, key=lambda name: (owner[name], self.size(name)))
        return owner[last] if self.size(last) == self.size(node.output[0]) else None

    def _fuse(self, kernel: Kernel, node: Any, others: list[str]) -> None:
        kernel.fused.append(node.op_type)
        kernel.read += sum(map(self.size, others))

    def _memory(self, node: Any, inputs: list[str]) -> Kernel:
        written = sum(map(self.size, node.output))
        kind: KernelClass = "move" if node.op_type in MOVE else "memory"
        read = written if kind == "move" else sum(map(self.size, inputs))
        return Kernel(node.name or node.op_type, node.op_type, kind, 0, read, 0, written, self._int8_input(inputs))

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
        first, second, made = node.input[0], self._weight_name(node), self.size(node.output[0])
        constant = second in self.constants
        kind: KernelClass = "matmul" if constant else "attention"
        if "Conv" in node.op_type:
            kind, columns, macs = self._conv(node, second)
        else:
            columns, macs = self.shapes[node.output[0]][-1], made * self._inner(node)
        return Kernel(
            name=node.name or node.output[0],
            op=node.op_type,
            kind=kind,
            macs=macs,
            read=self.size(first) + (0 if constant else self.size(second)),
            weights=self.size(second) if constant else 0,
            written=made,
            quantized=self._int8_input(inputs) or node.op_type.startswith("QLinear"),
            columns=columns,
            depth=max(1, macs // max(1, made)),
        )

    @staticmethod
    def _weight_name(node: Any) -> str:
        return str(node.input[3] if node.op_type.startswith("QLinear") else node.input[1])

    def _conv(self, node: Any, weight: str) -> tuple[KernelClass, int, int]:
        """Class, output channels of one group, and multiply-accumulates."""
        groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
        kernel, taps = self.shapes[weight], math.prod(self.shapes[weight][2:])
        if node.op_type == "ConvTranspose":
            columns, channels_in = kernel[1], kernel[0]
            macs = self.size(node.input[0]) * columns * taps
        else:
            columns, channels_in = kernel[0] // groups, kernel[1] * groups
            macs = self.size(node.output[0]) * kernel[1] * taps
        return ("depthwise" if groups > 1 and groups == channels_in else "conv"), columns, macs

    def _inner(self, node: Any) -> int:
        left = self.shapes[node.input[0]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return left[-2] if transposed else left[-1]


def _peak_live(kernels: list[Kernel], last_use: dict[int, int]) -> int:
    """Most elements alive while any kernel runs: its inputs, its output, and what later kernels still read."""
    change = [0] * (len(kernels) + 2)
    for i, kernel in enumerate(kernels):
        change[i] += kernel.written
        change[max(last_use.get(i, i), i) + 1] -= kernel.written
    alive = peak = 0
    for step in change:
        alive += step
        peak = max(peak, alive)
    return peak
