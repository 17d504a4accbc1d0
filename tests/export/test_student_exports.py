"""Students of every kind: torch, ONNX Runtime and OpenVINO agree; convolutional ones are pruned a step and quantized, a transformer
merges tokens behind cheaper activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import remove_channels
from rsedge.compress.quantize.ptq import PtqSettings, plain_ptq, quantize_part
from rsedge.data.bands import InputSpec
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import parity
from rsedge.export.parts import export_part, part_parity, save_ir
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.models.parts import Part
from rsedge.models.structure import load_model, replace_layers, replaced_layers, save_model
from rsedge.models.students import CATALOGUE, build_student
from rsedge.runtimes.file_checks import F32_TOLERANCE, agree
from tests.export.export_nets import trained_like
from tests.models.students.small_students import OUTPUTS, output_shape, small_arguments, small_contract

BOXES = "slim-detector"
OWN = [e.name for e in CATALOGUE.values() if not e.copies and e.name != BOXES]
# A map, a pair of dates, an own and timm's classifier, a series, a place: each kind once, the others with `make test-slow`.
REPLACED = {
    "vit-tiny": {
        "blocks": {"kind": "merged", "counts": [5, 4], "kept": 1},
        "blocks.0.mlp.act": {"kind": "hardswish"},
        "blocks.1.mlp.act": {"kind": "relu"},
    }
}
"""What stands in for others, in which of them: 17 tokens become 12, then 8."""
FAST = {"slim-unet", "siamese-unet", "vit-tiny", "resnet18", "series-conv", "place-mlp"}
NAMES = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in OWN]


def student(name: str, spec: InputSpec) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(build_student(name, small_arguments(name, spec)))


def inputs(spec: InputSpec, count: int) -> list[np.ndarray]:
    """Digital numbers over the bands' range, each with a missing corner or value."""
    rng = np.random.default_rng(0)
    if spec.is_image:
        found = [rng.integers(1, 6000, (1, *spec.shape)).astype(spec.dtype) for _ in range(count)]
        for dn in found:
            dn[..., :5, :5] = 0
        return found
    found = [rng.uniform(-80, 80, (1, *spec.shape)).astype(spec.dtype) for _ in range(count)]
    for dn in found if spec.layout == "TC" else []:
        dn[..., :3] = rng.integers(0, 8000, (1, spec.frames, 3))
        dn[0, 1:4, rng.integers(0, 3)] = 65535
    return found


def pruned(net: nn.Module, spec: InputSpec) -> nn.Module:
    """A quarter of the first group's channels gone, of those that may lose some."""
    groups = find_groups(net, torch.zeros(1, *spec.shape))
    free = next(g for g in groups if not g.blocked and g.channels >= 8)
    before = sum(p.numel() for p in net.parameters())
    remove_channels(net, groups, {free.name: list(range(free.channels // 4))})
    assert sum(p.numel() for p in net.parameters()) < before
    return net


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_student_exports_equal_and_quantizes(name: str, tmp_path: Path) -> None:
    entry = CATALOGUE[name]
    spec = small_contract(name, entry.layouts[0])
    net = student(name, spec)
    if entry.prunes:
        net = pruned(net, spec)
    replace_layers(net, REPLACED.get(name, {}))
    save_model(net, tmp_path / "model", name, small_arguments(name, spec))
    net = load_model(tmp_path / "model", build_student)
    assert replaced_layers(net) == REPLACED.get(name, {})
    output = {"segmentation": "map", "super-resolution": "image", "features": "features"}.get(entry.tasks[0], "vector")
    graph = Deployable(net, spec, output)
    classes = [f"c{i}" for i in range(OUTPUTS)]
    made = export_onnx(graph, spec, classes, tmp_path / "s.onnx")
    model = read_openvino(made.path)
    save_openvino(model, tmp_path / "s.xml", spec, classes)
    found = parity(graph, made.path, tmp_path / "s.xml", inputs(spec, 2), threads=1)
    assert agree(found), found
    if spec.is_image:
        small = plain_ptq(model, [dn[0] for dn in inputs(spec, 8)])
        assert "FakeQuantize" in {op.get_type_name() for op in small.get_ops()}


@pytest.mark.slow  # tests/rsedge/pipeline/test_detection_pipeline.py delivers one
def test_the_detector_exports_equal_as_a_part(tmp_path: Path) -> None:
    spec = small_contract(BOXES, "CHW")
    net = pruned(student(BOXES, spec), spec)
    part = Part(net, {"image": torch.rand(1, *spec.shape)}, ("candidates",))
    assert tuple(net(part.inputs["image"]).shape) == output_shape(BOXES, spec)
    made = export_part(part, tmp_path / "d.onnx")
    model = read_openvino(made.path)
    save_ir(model, tmp_path / "d.xml")
    image = np.random.default_rng(0).normal(0, 1, (1, *spec.shape)).astype(np.float32)
    found = part_parity(part, made.path, tmp_path / "d.xml", [{"image": image}])
    assert max(found.values()) <= F32_TOLERANCE, found
    small = quantize_part(model, [{"image": image + np.float32(0.1 * i)} for i in range(4)], PtqSettings())
    assert "FakeQuantize" in {op.get_type_name() for op in small.get_ops()}


def test_a_detector_is_pruned_up_to_its_decoding() -> None:
    """The channels of a head are what is decoded; every other layer may lose some."""
    spec = small_contract(BOXES, "CHW")
    groups = {g.name: g for g in find_groups(student(BOXES, spec), torch.zeros(1, *spec.shape))}
    assert {n for n, g in groups.items() if g.blocked} == {f"heads.{i}.1" for i in range(3)}
    assert all("the model's output" in (groups[f"heads.{i}.1"].blocked or "") for i in range(3))


def test_outputs_of_a_vector_student_are_never_pruned() -> None:
    for name in ("resnet18", "series-conv", "place-mlp"):
        spec = small_contract(name, CATALOGUE[name].layouts[0])
        groups = {g.name: g for g in find_groups(student(name, spec), torch.zeros(1, *spec.shape))}
        last = groups["fc" if name == "resnet18" else "head"]
        assert last.blocked is not None and "the model's output" in last.blocked
