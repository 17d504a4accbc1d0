"""Parts and moving windows at reduced width: torch -> ONNX -> OpenVINO at f32, TensorRT's compile gate, nothing dynamic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rsedge.compress.quantize.qdq import quantize_part_onnx
from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import parity
from rsedge.export.parts import export_part, part_parity, part_to_openvino, run_part_onnx
from rsedge.export.targets.openvino import export_openvino
from rsedge.export.targets.tensorrt import compiles, type_for_tensorrt
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.runtimes.file_checks import F32_TOLERANCE, agree
from tests.conftest import Results
from tests.models.reduced import reduced_row
from tests.models.small import random_net
from tests.models.small_parts import ROWS

# Moving windows and a part of several inputs. A detector and a decoder of latents are exported by the pipeline's test of boxes and
# by the example of docs/parts.md; the others differ in numbers only and run with `make test-slow`.
FAST = {"rvsa-vitaeb-kvdiff-upernet-loveda", "earthdial"}
SAMPLING = {("rsprompter_query", "prompter")}
"""Parts, among others that do not, that read places which they choose."""
MOVING = {"rvsa", "rvsa_oriented", "rvsa_upernet", "hypersigma", "hypersigma_change"}
SAME = ("-isaid", "-potsdam", "-dota")
"""Ends of names of rows that differ from others by classes and size alone, which are reduced."""
WHOLE = [r.name for r in ROWS if family(r.family).parts is None and not r.name.endswith(SAME)]
SPLIT = [r.name for r in ROWS if family(r.family).parts is not None and not r.name.endswith(SAME)]
DYNAMIC = {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements", "GatherND", "Shape", "Range", "Einsum"}


def marked(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names]


def check(path: Path, moving: bool) -> None:
    """Static, and compiled by TensorRT."""
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & DYNAMIC
    assert ("GridSample" in operators) == moving
    pytest.importorskip("tensorrt_rtx")
    gate = compiles(path)
    assert gate.ok, gate.message


@pytest.mark.parametrize("name", marked(WHOLE))
def test_moving_windows_are_static_graphs(name: str, tmp_path: Path, results: Results) -> None:
    row = reduced_row(name)
    spec = row.input_spec
    net = Deployable(random_net(row), spec, "map" if row.task == "segmentation" else "vector")
    classes = [f"c{i}" for i in range(net.classes)]
    made = export_onnx(net, spec, classes, tmp_path / "m.onnx", input_dtype="float32")
    export_openvino(made.path, tmp_path / "m.xml", spec, classes)
    top = 1.0 if spec.dtype == "float32" else 255
    rng = np.random.default_rng(0)
    found = parity(
        net, made.path, tmp_path / "m.xml", [(rng.random((1, *spec.shape)) * top).astype(spec.dtype)], threads=1
    )
    assert agree(found), found
    check(type_for_tensorrt(made.path, tmp_path / "t.onnx", "f32", "10.3").onnx.path, moving=True)
    largest = max(found[runtime].max_abs for runtime in ("onnxruntime", "openvino"))
    results.setdefault(f"family {row.family}", {})["export"] = f"{largest:.0e}, compiles"


@pytest.mark.parametrize("name", marked([*SPLIT, "satmae-temporal-vitl"]))
def test_parts_export_equal_and_compile(name: str, tmp_path: Path, results: Results) -> None:
    row = reduced_row(name)
    split = family(row.family).parts
    assert split is not None
    worst = 0.0
    for label, part in split(random_net(row)).items():
        export_part(part, tmp_path / f"{label}.onnx")
        part_to_openvino(tmp_path / f"{label}.onnx", tmp_path / f"{label}.xml")
        inputs = {key: value.numpy() for key, value in part.inputs.items()}
        found = part_parity(part, tmp_path / f"{label}.onnx", tmp_path / f"{label}.xml", [inputs])
        assert max(found.values()) <= F32_TOLERANCE, (label, found)
        worst = max(worst, found["onnxruntime"], found["openvino"])
        moving = row.family in MOVING or (row.family, label) in SAMPLING
        check(tmp_path / f"{label}.onnx", moving=moving)
    results.setdefault(f"family {row.family}", {})["export"] = f"{worst:.0e}, compiles"


class TwoToTwo(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a @ b.T


def test_parts_keep_the_names_of_their_tensors(tmp_path: Path) -> None:
    part = Part(TwoToTwo(), {"left": torch.ones(2, 3), "right": torch.ones(2, 3)}, ("sum", "product"))
    made = export_part(part, tmp_path / "p.onnx", opset=17)
    graph = onnx.load(made.path).graph
    assert [i.name for i in graph.input] == ["left", "right"] and [o.name for o in graph.output] == ["sum", "product"]
    part_to_openvino(made.path, tmp_path / "p.xml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.bin", "p.onnx", "p.xml"]
    inputs = {"left": np.eye(2, 3, dtype=np.float32), "right": np.ones((2, 3), np.float32)}
    record = part_parity(part, made.path, tmp_path / "p.xml", [inputs])
    assert max(record.values()) <= F32_TOLERANCE and record["openvino"] == 0


def test_parity_needs_samples_and_sees_differences(tmp_path: Path) -> None:
    part = Part(nn.Linear(3, 2), {"x": torch.ones(1, 3)}, ("y",))
    export_part(part, tmp_path / "p.onnx")
    part_to_openvino(tmp_path / "p.onnx", tmp_path / "p.xml")
    with pytest.raises(RequestError, match="at least one sample"):
        part_parity(part, tmp_path / "p.onnx", tmp_path / "p.xml", [])
    changed = Part(nn.Linear(3, 2), part.inputs, ("y",))
    record = part_parity(changed, tmp_path / "p.onnx", tmp_path / "p.xml", [{"x": np.ones((1, 3), np.float32)}])
    assert max(record.values()) > F32_TOLERANCE


class Dated(nn.Module):
    """Values (1, 8) and a year (1,), of which fp16 would keep no tenth -> features (1, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.values, self.waves = nn.Linear(8, 4), nn.Linear(2, 4)

    def forward(self, values: torch.Tensor, year: torch.Tensor) -> torch.Tensor:
        phase = year[:, None] * 6.28
        return self.values(values) + self.waves(torch.cat((phase.sin(), phase.cos()), 1))


def test_typed_for_tensorrt_dates_stay_exact_up_to_the_first_weights(tmp_path: Path) -> None:
    part = Part(Dated(), {"values": torch.ones(1, 8), "year": torch.tensor([2015.3])}, ("features",))
    source = export_part(part, tmp_path / "p.onnx", opset=19).path
    made = type_for_tensorrt(source, tmp_path / "t.onnx", "fp16", "10.3")
    assert made.counts["half"] > 0
    inputs = {name: value.numpy() for name, value in part.inputs.items()}
    assert np.allclose(run_part_onnx(made.onnx.path, inputs)["features"], part.run(inputs)["features"], atol=5e-3)
    with pytest.raises(RequestError, match="a part of 2 inputs is built for batch 1"):
        type_for_tensorrt(source, tmp_path / "t.onnx", "fp16", "10.3", max_batch=4)


def test_biases_beyond_fp16_steps_need_the_typed_file_as_written(tmp_path: Path) -> None:
    """Scales of 1e-4 are fp16 numbers, their product is zero there; ONNX Runtime's rewriting divides the bias by it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter.mul_(0.01)
        net[2].weight.mul_(0.05)
    part = Part(net.eval(), {"x": torch.randn(4, 8)}, ("features",))
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(size=(4, 8)).astype(np.float32)} for _ in range(16)]
    source = export_part(part, tmp_path / "f32.onnx", opset=19).path
    quantize_part_onnx(source, tmp_path / "int8.onnx", samples)
    typed = type_for_tensorrt(tmp_path / "int8.onnx", tmp_path / "typed.onnx", "int8", "10.3").onnx.path
    wanted = part.run(samples[0])["features"]
    found = run_part_onnx(typed, samples[0], as_written=True)["features"]
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
