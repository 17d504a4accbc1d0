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

    Every operator must treat the first axis as the batch. Constant target shapes that begin with 1 get -1 there; what else
    would fix the batch (a constant shape with another -1, a Transpose that moves the first axis, a Concat along it) is refused.

    Raises:
        RequestError: names the operators that stand in the way.
    """
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    refused = []
    for node in graph.node:
        if node.op_type in _SHAPED:
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


def _moves_batch(node: onnx.NodeProto) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Transpose":
        return bool(attributes.get("perm", [1])[0] != 0)
    axis = attributes.get("axis")
    return axis == 0 and node.op_type in ("Concat", "Split", "Softmax", "Gather", "LayerNormalization")
