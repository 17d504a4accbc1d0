"""What every row's deployable part must pass at reduced width: ONNX and OpenVINO equal torch, TensorRT compiles it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.export.graph import Deployable, Output
from rsedge.export.onnx import export_onnx
from rsedge.export.openvino import export_openvino
from rsedge.export.parity import parity
from rsedge.export.parts import export_part, part_parity, part_to_openvino
from rsedge.export.tensorrt import compiles, type_for_tensorrt
from rsedge.models.parts import Part

def listed(text: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a key listing: ``name (1, 2) float32`` a line."""
    found = {}
    for line in filter(None, text.splitlines()):
        name, shape = line.split(" (")
        found[name] = tuple(int(n) for n in shape.split(")")[0].split(",") if n.strip())
    return found


def randomise(net: nn.Module, seed: int = 0, spread: float = 0.1) -> nn.Module:
    """Every parameter and running statistic random, so that no branch is silent (zero-initialised layers are)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator) * spread
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else tensor + noise)
    return net.eval()


def deploys(net: nn.Module, spec: InputSpec, output: Output, folder: Path) -> onnx.ModelProto:
    """Exports ``net`` behind its band contract (as float32 DN, so that one file serves all); gives the ONNX graph."""
    spec = spec.model_copy(update={"dtype": "float32"})
    graph = Deployable(net, spec, output)
    classes = [f"class {i}" for i in range(graph.classes)]
    made = export_onnx(graph, spec, classes, folder / "m.onnx")
    export_openvino(made.path, folder / "m.xml", spec, classes)
    dn = np.random.default_rng(0).integers(0, 256, (2, 1, *spec.shape)).astype(np.float32)
    record = parity(graph, made.path, folder / "m.xml", list(dn))
    assert record["passed"], record
    return compiled(type_for_tensorrt(made.path, folder / "typed.onnx", "f32", "10.3").onnx.path)


def part_deploys(part: Part, folder: Path, gate: bool = True) -> onnx.ModelProto:
    """The same for a part with named tensors; inputs are its own, and their negation where they are real numbers."""
    export_part(part, folder / "p.onnx")
    part_to_openvino(folder / "p.onnx", folder / "p.xml")
    record = part_parity(part, folder / "p.onnx", folder / "p.xml", list(_samples(part.inputs.items())))
    assert record["passed"], record
    return compiled(folder / "p.onnx") if gate else onnx.load(folder / "p.onnx")


def _samples(inputs: Iterable[tuple[str, Tensor]]) -> Iterable[dict[str, np.ndarray]]:
    named = list(inputs)
    yield {name: t.numpy() for name, t in named}
    yield {name: -t.numpy() if t.is_floating_point() else t.numpy() for name, t in named}


def compiled(path: Path) -> onnx.ModelProto:
    pytest.importorskip("tensorrt_rtx")
    gate = compiles(path)
    assert gate["ok"], gate["message"]
    return onnx.load(path)


def static(model: onnx.ModelProto) -> bool:
    """Whether every shape is known and nothing branches, loops or scatters."""
    dynamic = {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements", "Where", "Shape", "Range"}
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = [v.type.tensor_type.shape for v in (*inferred.graph.value_info, *inferred.graph.output)]
    return not dynamic & {n.op_type for n in model.graph.node} and all(
        d.HasField("dim_value") for shape in shapes for d in shape.dim
    )
