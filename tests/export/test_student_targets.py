"""The students that recipes name, built for real: TensorRT for RTX for three GPU generations, OpenVINO 2022.3.2 for the VPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.myriad import export_myriad
from rsedge.export.targets.tensorrt import check_typed, compiles, type_for_tensorrt
from rsedge.models.students import build_student
from tests.export.export_nets import CLASSES, contract, tiles, trained_like

SHAPES = {
    "slim-unet": {"stem": 8, "encoder": [16, 24, 32, 48], "decoder": [32, 24, 16, 16]},
    "smp-unet": {"encoder": "timm-mobilenetv3_small_minimal_100", "decoder": [32, 16, 16, 8, 8]},
}


def student(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return trained_like(build_student(name, {"bands": 6, "classes": 3, **SHAPES[name]}))


NAMES = ["slim-unet", pytest.param("smp-unet", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NAMES)
def test_tensorrt_builds_every_student(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    source = export_onnx(student(name), contract(), CLASSES, tmp_path / "f32.onnx", 19, "float32").path
    made = type_for_tensorrt(source, tmp_path / "fp16.onnx", "fp16", "10.3", 8)
    found = check_typed(source, made.onnx.path, tiles(contract(), 1), 1)
    assert found.agreement > 0.99 and found.valid_equal
    for sm in ("SM86", "SM89", "SM120"):
        gate = compiles(made.onnx.path, sm, 8)
        assert gate.ok, gate.message


@pytest.mark.parametrize("name", NAMES)
def test_the_vpu_takes_every_student(name: str, tmp_path: Path, need_openvino2022: Path) -> None:
    source = export_onnx(student(name), contract(), CLASSES, tmp_path / "f32.onnx", 17, "float32").path
    made = export_myriad(source, tmp_path / "model.xml", contract(), CLASSES, tiles(contract(), 1), 1)
    assert made.passed and made.activations_fp16.agreement > 0.98
