"""The exporter's table of operators is made once, and what is exported with it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.export.onnx import operators
from rsedge.export.onnx.writing import export_onnx

SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=32)


def test_the_table_is_made_once_and_exports_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    own = _registration.ONNXRegistry.__dict__["from_torchlib"]

    def counted(cls: type, opset_version: int) -> object:
        made.append(opset_version)
        return own.__func__(cls, opset_version)

    monkeypatch.setattr(operators, "_made", {})
    monkeypatch.setattr(_registration.ONNXRegistry, "from_torchlib", classmethod(counted))
    before = _registration.ONNXRegistry.__dict__["from_torchlib"]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Hardswish(), nn.Conv2d(4, 2, 1)).eval()
    files = [export_onnx(net, SPEC, ("land", "water"), tmp_path / f"{i}.onnx") for i in range(2)]
    assert len(made) == 1 and files[0].sha256 == files[1].sha256
    assert _registration.ONNXRegistry.__dict__["from_torchlib"] is before


def test_what_an_export_registers_stays_its_own() -> None:
    with operators.known_operators():
        first = _registration.ONNXRegistry.from_torchlib()
        first.register_op(torch.ops.aten.relu.default, lambda x: x)
        second = _registration.ONNXRegistry.from_torchlib()
    counts = [len(r.functions["aten::relu"]) for r in (first, second)]
    assert counts == [counts[1] + 1, counts[1]] and counts[1] > 0
