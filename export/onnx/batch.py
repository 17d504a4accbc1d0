"""A dynamic batch for a graph that was traced with one tile, so that TensorRT may run several at once."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rsedge.data.errors import RequestError

BATCH = "batch"
_SHAPED = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}


def make_batch_dynamic(model: onnx.ModelProto) -> None:
    """Names the first axis of inputs and outputs ``batch`` and frees it inside, in place.

    Every operator must treat the first axis as the batch. Constant target shapes that begin with 1 are freed there, and sizes of
    a Resize become scales; what else would fix the batch (a computed shape, a Transpose that moves the first axis, a Concat
    along it) is refused.

    Raises:
        RequestError: names the operators that stand in the way.
    """
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    shapes = _shapes(model)
    refused = []
    for node in graph.node:
        if node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
            if not _sizes_to_scales(node, constants, shapes, graph):
                refused.append(node.name)
        elif node.op_type in _SHAPED:
            if not _free(node, constants, graph):
                refused.append(node.name)
        elif _moves_batch(node):
            refused.append(node.name)
    if refused:
        raise RequestError(f"the batch cannot be made dynamic because of {', '.join(refused)}; leave max_batch at 1")
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for output in found.graph.output:
        if output.type.tensor_type.shape.dim[0].dim_param != BATCH:
            raise RequestError(f"the batch cannot be made dynamic: '{output.name}' keeps its own; leave max_batch at 1")


def _free(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], graph: onnx.GraphProto) -> bool:
    """Frees the batch in a constant target shape; False where that is impossible."""
    name = node.input[_SHAPED[node.op_type]]
    if name not in constants or node.op_type == "ConstantOfShape":
        return False
    shape: np.ndarray = numpy_helper.to_array(constants[name])
    if node.op_type == "Tile":
        return bool(shape[0] == 1)
    if shape[0] != 1:  # Reshape: 0 copies the batch, -1 infers it; Expand has neither
        return node.op_type == "Reshape" and bool(shape[0] in (0, -1))
    if node.op_type == "Expand":
        return True  # broadcasting with 1 keeps the batch
    freed = shape.copy()
    freed[0] = 0 if -1 in shape else -1
    constants[f"{name}/batch"] = numpy_helper.from_array(freed, f"{name}/batch")
    if all(i.name != f"{name}/batch" for i in graph.initializer):
        graph.initializer.append(constants[f"{name}/batch"])
    node.input[_SHAPED[node.op_type]] = f"{name}/batch"
    return True


def _sizes_to_scales(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], shapes: dict[str, list[int]], graph: onnx.GraphProto
) -> bool:
    """Replaces the sizes of a Resize by whole-numbered scales; False where they are none."""
    before, sizes = shapes.get(node.input[0]), constants.get(node.input[3])
    if before is None or sizes is None:
        return False
    after = [int(v) for v in numpy_helper.to_array(sizes)]
    if len(after) != len(before) or any(b <= 0 or a % b for a, b in zip(after, before, strict=True)):
        return False
    scales = numpy_helper.from_array(np.array(after, np.float32) / np.array(before, np.float32), f"{node.name}/scales")
    graph.initializer.append(scales)
    node.input[2] = scales.name
    del node.input[3:]
    return True


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Static shapes by tensor; 0 for what is not known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _moves_batch(node: onnx.NodeProto) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Transpose":
        return bool(attributes.get("perm", [1])[0] != 0)
    axis = attributes.get("axis")
    return axis == 0 and node.op_type in ("Concat", "Split", "Softmax", "Gather", "LayerNormalization")
