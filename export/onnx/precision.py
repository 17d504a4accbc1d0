"""Precision written into the ONNX graph itself: fp16 where it is safe, f32 where it is not, explicit int8 Q/DQ kept.

TensorRT 10's strongly typed mode and all of TensorRT 11 take every tensor's type from the graph, so the choice has to
be made here. What stays f32 and why: all steps on raw digital numbers (uint16 DN exceeds the fp16 range of 65504 and
its 11 bits), normalisations, softmax and long sums (their sums of squares and exponentials overflow or lose bits).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rsedge.data.errors import RequestError
from rsedge.export.onnx.opset import drop_unused_initializers, opset_of

QDQ_HALF_OPSET = 19
"""First opset whose QuantizeLinear and DequantizeLinear take fp16."""
KEEP_F32 = frozenset(
    {
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization", "Softmax"),
        *("LogSoftmax", "Exp", "Log", "Sqrt", "Pow", "Reciprocal", "CumSum", "GlobalAveragePool", "Range"),
        *(f"Reduce{kind}" for kind in ("Mean", "Sum", "SumSquare", "L1", "L2", "LogSum", "LogSumExp", "Prod")),
    }
)
_NETWORK_BEGINS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "QuantizeLinear"}
_ALWAYS_F32_INPUTS = {"Resize": (1, 2)}  # region of interest and scales
_HALF_MAX = 65504.0
_STEP_ERROR = 1 / 256  # largest relative error of a quantization step stored in fp16


@dataclasses.dataclass(frozen=True)
class TypedCounts:
    """How many nodes compute in which type."""

    half: int
    single: int
    quantize: int


def make_half(model: onnx.ModelProto) -> TypedCounts:
    """Rewrites an f32 (or f32 Q/DQ) graph in place to fp16 weights and activations; its inputs and outputs stay.

    Raises:
        RequestError: the graph has subgraphs, or Q/DQ at an opset under 19.
    """
    constants_to_initializers(model)
    quantized = any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in model.graph.node)
    if quantized and opset_of(model) < QDQ_HALF_OPSET:
        raise RequestError(
            f"int8 with fp16 between needs ONNX opset {QDQ_HALF_OPSET} (TensorRT 10 or later), this graph has "
            f"{opset_of(model)}; export again with opset {QDQ_HALF_OPSET}, or keep f32 between"
        )
    return _HalfRewriter(model).run()


def split_bool_casts(model: onnx.ModelProto, has_uint8: bool = True) -> None:
    """Turns bool -> uint8 into bool -> float32 -> uint8, the only way to uint8 that TensorRT takes.

    Args:
        has_uint8: False for TensorRT before 8.5, which has no uint8 output: it becomes int32.
    """
    types = tensor_types(model)
    nodes = []
    for node in model.graph.node:
        from_bool = node.op_type == "Cast" and types.get(node.input[0]) == TensorProto.BOOL
        if from_bool and _cast_target(node) == TensorProto.UINT8:
            if has_uint8:
                middle = f"{node.output[0]}/f32"
                nodes.append(_cast(node.input[0], middle, TensorProto.FLOAT, f"{node.name}/f32"))
                node.input[0] = middle
            else:
                _set_cast(node, TensorProto.INT32)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for output in model.graph.output:
        if not has_uint8 and output.type.tensor_type.elem_type == TensorProto.UINT8:
            output.type.tensor_type.elem_type = TensorProto.INT32
    _forget_shapes(model)


def cast_constant_outputs(model: onnx.ModelProto) -> None:
    """Turns outputs that are uint8 constants (masks of inputs without nodata) into float32 constants and a cast.

    TensorRT has no uint8 constants.
    """
    outputs = {o.name for o in model.graph.output}
    for stored in [i for i in model.graph.initializer if i.name in outputs and i.data_type == TensorProto.UINT8]:
        source = f"{stored.name}/f32"
        values = numpy_helper.to_array(stored).astype(np.float32)
        model.graph.initializer.remove(stored)
        model.graph.initializer.append(numpy_helper.from_array(values, source))
        model.graph.node.append(_cast(source, stored.name, TensorProto.UINT8, f"prepare/{stored.name}/u8"))


def check_symmetric(model: onnx.ModelProto) -> int:
    """The number of Q/DQ nodes, after checking that all are int8 with zero-point 0, as TensorRT needs.

    Raises:
        RequestError: names the first node that is not, and the NNCF setting that makes it so.
    """
    constants = {i.name: i for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in nodes:
        zero = node.input[2] if len(node.input) > 2 else ""
        stored = constants.get(zero)
        if stored is None and (zero or node.op_type == "QuantizeLinear"):
            raise RequestError(f"{node.name}: its zero-point must be a stored int8 zero for TensorRT")
        if stored is None:
            continue
        if stored.data_type != TensorProto.INT8 or numpy_helper.to_array(stored).any():
            kind = TensorProto.DataType.Name(stored.data_type).lower()
            raise RequestError(
                f"{node.name}: TensorRT needs int8 with zero-point 0, this one is {kind} with zero-point "
                f"{numpy_helper.to_array(stored).ravel()[0]}; quantize activations with mode=SYMMETRIC"
            )
    return len(nodes)


def make_signed(model: onnx.ModelProto) -> int:
    """Turns uint8 quantizers with zero-point 0 into int8 ones over the same range; returns how many nodes changed.

    NNCF gives unsigned quantizers to activations that are never negative, and its hardware tables allow no other;
    TensorRT has no uint8. The step grows by 255/127, so one bit is lost on those activations.
    """
    stored = {i.name: i for i in model.graph.initializer}
    changed = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero, scale, data = stored.get(node.input[2]), stored.get(node.input[1]), node.input[0]
        if zero is None or scale is None or zero.data_type != TensorProto.UINT8 or data in stored:
            continue
        if numpy_helper.to_array(zero).any():
            continue
        for index, value in ((1, numpy_helper.to_array(scale) * np.float32(255 / 127)), (2, _int8_zeros(zero))):
            name = f"{node.input[index]}/signed"
            if name not in stored:
                stored[name] = numpy_helper.from_array(value, name)
                model.graph.initializer.append(stored[name])
            node.input[index] = name
        changed += 1
    if changed:
        _forget_shapes(model)
        drop_unused_initializers(model.graph)
    return changed


def _int8_zeros(like: onnx.TensorProto) -> np.ndarray:
    return np.zeros(tuple(like.dims), np.int8)


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Lifts ``Constant`` nodes into the list of stored tensors."""
    kept = []
    for node in model.graph.node:
        values = [a for a in node.attribute if a.name == "value"]
        if node.op_type == "Constant" and values:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(values[0].t)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor by name, from shape inference."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise RequestError(f"the graph's types cannot be worked out: {error}") from error
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {i.name: i.data_type for i in graph.initializer}


class _HalfRewriter:
    """One walk over the nodes in order; ``_as`` gives a tensor in the wanted type, casting once, where needed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.types = tensor_types(model)
        self.stored = {i.name: i for i in self.graph.initializer}
        self.made_half: set[str] = set()
        self.versions: dict[tuple[str, int], str] = {}
        self.raw: set[str] = {i.name for i in self.graph.input}
        self.wide: set[str] = set()  # float32 results whose reader must stay float32
        self.nodes: list[onnx.NodeProto] = []
        self.counts = {"half": 0, "single": 0, "quantize": 0}

    def run(self) -> TypedCounts:
        for node in list(self.graph.node):
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise RequestError(f"{node.name}: {node.op_type} has a subgraph, which a static graph must not have")
            single = self._stays_single(node)
            self._rewrite(node, TensorProto.FLOAT if single else TensorProto.FLOAT16)
        self._restore_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        _forget_shapes(self.model)
        drop_unused_initializers(self.graph)
        return TypedCounts(**self.counts)

    def _stays_single(self, node: onnx.NodeProto) -> bool:
        if self._is_raw(node):
            self.raw.update(node.output)
            return True
        if node.op_type in KEEP_F32 or any(name in self.wide for name in node.input):
            return True
        if any(self._overflows(name) for name in node.input):
            return True
        if node.op_type == "DequantizeLinear" and self._tiny(node.input[1]):
            self.wide.update(node.output)
            return True
        return node.op_type == "QuantizeLinear" and self._tiny(node.input[1])

    def _is_raw(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` still works on digital numbers, dates or times: all from the inputs up to the first weights."""
        moving = [name for name in node.input if name and name not in self.stored]
        return bool(moving) and all(m in self.raw for m in moving) and node.op_type not in _NETWORK_BEGINS

    def _overflows(self, name: str) -> bool:
        if self.types.get(name) != TensorProto.FLOAT or name not in self.stored:
            return False
        values = numpy_helper.to_array(self.stored[name])
        return bool(values.size) and float(np.abs(values).max()) > _HALF_MAX

    def _tiny(self, scale: str) -> bool:
        """Whether a quantization step is so small that fp16 would change it by more than 1/256."""
        if scale not in self.stored:
            return True
        steps = numpy_helper.to_array(self.stored[scale]).astype(np.float64)
        return bool((np.abs(steps.astype(np.float16) - steps) > _STEP_ERROR * steps).any())

    def _rewrite(self, node: onnx.NodeProto, wanted: int) -> None:
        fixed = _ALWAYS_F32_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name and self.types.get(name) == TensorProto.FLOAT:
                node.input[index] = self._as(name, TensorProto.FLOAT if index in fixed else wanted)
        floating = [o for o in node.output if self.types.get(o) == TensorProto.FLOAT]
        if wanted == TensorProto.FLOAT16:
            self.made_half.update(floating)
            self._retype(node)
        self._count(node, wanted)
        self.nodes.append(node)

    def _retype(self, node: onnx.NodeProto) -> None:
        """Attributes that state a result's type."""
        if node.op_type == "Cast" and _cast_target(node) == TensorProto.FLOAT:
            _set_cast(node, TensorProto.FLOAT16)
        if node.op_type == "ConstantOfShape" and not node.attribute:  # float32 zeros where nothing is said
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))

    def _as(self, name: str, wanted: int) -> str:
        if name in self.stored:
            return name if wanted == TensorProto.FLOAT else self._half_constant(name)
        native = TensorProto.FLOAT16 if name in self.made_half else TensorProto.FLOAT
        if native == wanted:
            return name
        key = (name, wanted)
        if key not in self.versions:
            suffix = "f16" if wanted == TensorProto.FLOAT16 else "f32"
            self.versions[key] = f"{name}/{suffix}"
            self.nodes.append(_cast(name, self.versions[key], wanted, f"cast/{name}/{suffix}"))
        return self.versions[key]

    def _half_constant(self, name: str) -> str:
        key = (name, TensorProto.FLOAT16)
        if key not in self.versions:
            half = numpy_helper.from_array(numpy_helper.to_array(self.stored[name]).astype(np.float16), f"{name}/f16")
            self.graph.initializer.append(half)
            self.versions[key] = half.name
        return self.versions[key]

    def _restore_outputs(self) -> None:
        """Graph outputs keep name and type: the fp16 result behind one gets another name and a cast."""
        for output in self.graph.output:
            name = output.name
            if name not in self.made_half:
                continue
            inner = f"{name}/half"
            for node in self.nodes:
                node.output[:] = [inner if o == name else o for o in node.output]
                node.input[:] = [inner if i == name else i for i in node.input]
            self.nodes.append(_cast(inner, name, TensorProto.FLOAT, f"cast/{name}"))

    def _count(self, node: onnx.NodeProto, wanted: int) -> None:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            self.counts["quantize"] += 1
        else:
            self.counts["half" if wanted == TensorProto.FLOAT16 else "single"] += 1


def _cast(source: str, target: str, to: int, name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=name, to=to)


def _cast_target(node: onnx.NodeProto) -> int:
    return next(int(a.i) for a in node.attribute if a.name == "to")


def _set_cast(node: onnx.NodeProto, to: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = to


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Drops stored types of inner tensors, which are stale after a rewrite."""
    del model.graph.value_info[:]
