"""TensorRT models in bundles that nobody signed: what its parser and builder do not survive must not end our process."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.runtimes import Bundle
from rsedge.runtimes.tensorrt.apart import compile_apart
from rsedge.runtimes.tensorrt.compile import BuildOptions
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged
from tests.runtimes import tiny_models as tiny

CONTRACT = tiny.spec(32)
TARGET = "tensorrt-jetson-orin-nano-8gb-fp16"
RTX, SM = "tensorrt_rtx", "SM86"
"""It builds without a GPU."""

SIZES = (0, -1, 1, 3, 7, 2**31 - 1, 2**62, -(2**63))
OPERATIONS = ("Cast", "Conv", "Resize", "Gather", "Loop", "If", "NonMaxSuppression", "Einsum", "TopK", "Reshape", "Concat", "Pad",
              "Slice", "LSTM", "Where", "QuantizeLinear", "ScatterND", "GridSample", "OneHot", "Transpose")  # fmt: skip


@kind("unsigned bundle: its TensorRT model damaged or reworded, and built", seconds=120.0, few=4)
def tensorrt_damaged(rng: np.random.Generator, folder: Path) -> Result:
    """What happens to files, or another word or number at some nodes, weights and sizes of the graph."""
    if importlib.util.find_spec(RTX) is None:
        return Result("harmless", "no TensorRT here that builds without a GPU")
    bundle = tiny.make_bundle(folder / "bundle", CONTRACT, TARGET)
    file = bundle / "model.onnx"
    changed, how = damaged(file.read_bytes(), rng)
    if rng.random() < 0.7:
        changed, how = reworded(file.read_bytes(), rng, int(rng.integers(1, 4))), "reworded"
    file.write_bytes(changed)
    tiny.write_manifest(bundle, CONTRACT, TARGET, file.name)

    def act() -> bool:
        """Any engine will do."""
        with Bundle.open(bundle) as opened:
            return len(compile_apart(opened.model(), BuildOptions(), RTX, SM, seconds=60).engine) > 0

    found = told(how, act)
    shutil.rmtree(bundle)
    return found


def reworded(content: bytes, rng: np.random.Generator, times: int) -> bytes:
    """An ONNX model with other words and numbers in it."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(times):
        _reword(model.graph, rng)
    return bytes(model.SerializeToString())


def _reword(graph: Any, rng: np.random.Generator) -> None:
    size = SIZES[int(rng.integers(len(SIZES)))]
    node, weight = _one(graph.node, rng), _one(graph.initializer, rng)
    way = int(rng.integers(8))
    if way == 0 and node is not None:
        node.op_type = str(rng.choice(OPERATIONS))
    elif way == 1 and node is not None and node.input:
        names = [name for other in graph.node for name in (*other.input, *other.output)]
        node.input[int(rng.integers(len(node.input)))] = str(rng.choice([*names, "no such"]))
    elif way == 2 and node is not None and (attribute := _one(node.attribute, rng)) is not None:
        attribute.i = size
        if attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = size
    elif way == 3 and weight is not None and weight.dims:
        weight.dims[int(rng.integers(len(weight.dims)))] = size
    elif way == 4 and weight is not None:
        weight.data_type = int(rng.integers(24))
    elif way == 5 and weight is not None:
        weight.raw_data = weight.raw_data[: int(rng.integers(len(weight.raw_data) + 1))]
    elif way == 6:
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[int(rng.integers(len(dims)))].dim_value = size
    else:
        graph.input[0].type.tensor_type.elem_type = int(rng.integers(24))


def _one(of: Iterable[Any], rng: np.random.Generator) -> Any:
    found = list(of)
    return found[int(rng.integers(len(found)))] if found else None
