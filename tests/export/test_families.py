"""Each family's deployable part, at reduced width: torch -> ONNX -> OpenVINO at f32, and TensorRT's compile gate."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import parity
from rsedge.export.targets.openvino import export_openvino
from rsedge.export.targets.tensorrt import compiles, type_for_tensorrt
from rsedge.runtimes.file_checks import agree
from tests.conftest import Results
from tests.models.reduced import reduced_row, scenes
from tests.models.small import random_net

# Kinds of networks that tests/compress/test_families.py, which exports as well, does not take all the way; the others with
# `make test-slow`, and ukis-csmask too, which is not reduced.
FAST = (
    "satmae-rgb-vitl",
    "spectralgpt-vitb",
    "gfm-swinb",
    "satlas-s2-ms-swinv2t",
    "galileo-nano-series",
    "so2sat-resnet20",
)
MORE = (
    "seco-resnet50", "glcnet-rgb", "billion-scale-vit-l12x4", "satmae-ms-vitb", "geoclip-location", "satclip-l40", "csp-fmow",
    "range-plus", "presto", "galileo-nano-image", "streetclip", "av-resnet50-image", "av-resnet1d18-sound", "gair-query",
    "gair-street", "ukis-csmask-6b-l1c", "satlas-s2-rgb-mi-swinv2b",
)  # fmt: skip
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
# What flies has to run on every runtime named here; these operators do not, or only slowly.
UNWANTED = {"GatherND", "ScatterND", "ScatterElements", "GridSample", "Einsum", "If", "Loop", "NonZero"}


@pytest.mark.parametrize("name", NAMES)
def test_reduced_family_exports_equal_and_compiles(name: str, tmp_path: Path, results: Results) -> None:
    row = reduced_row(name)
    spec = row.input_spec
    net = Deployable(random_net(row), spec, "map" if row.task == "segmentation" else "vector")
    classes = [f"c{i}" for i in range(net.classes)]
    made = export_onnx(net, spec, classes, tmp_path / "m.onnx", input_dtype="float32")
    operators = {node.op_type for node in onnx.load(made.path).graph.node}
    assert not operators & UNWANTED
    ir = export_openvino(made.path, tmp_path / "m.xml", spec, classes)
    found = parity(net, made.path, ir.xml, scenes(spec), threads=1)
    assert agree(found), found
    assert min(found[runtime].logit_scale for runtime in ("onnxruntime", "openvino")) > 1e-3
    pytest.importorskip("tensorrt_rtx")
    gate = compiles(type_for_tensorrt(made.path, tmp_path / "t.onnx", "fp16", "10.3").onnx.path)
    assert gate.ok, gate.message
    outcomes = [found[runtime] for runtime in ("onnxruntime", "openvino")]
    largest = max(outcome.max_abs / outcome.logit_scale for outcome in outcomes)
    results.setdefault(f"family {row.family}", {})["export"] = f"{largest:.0e}, compiles"
