"""NNCF's post-training quantization as it comes. Only the arithmetic on raw digital numbers is left alone, which OpenVINO's CPU
plugin cannot run in eight bits."""

from __future__ import annotations

from pathlib import Path

from contender import Made
from material import Material

from rsedge.compress.quantize.ptq import plain_ptq
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.results.records import Teacher


def make(material: Material, folder: Path) -> Made:
    ctx = material.ctx
    quantized = plain_ptq(read_openvino(material.teacher), list(ctx.calibration))
    path = folder / "model.xml"
    save_openvino(quantized, path, ctx.spec, ctx.classes)
    return Made(model=str(path), macs=material.line.stages.results.of(Teacher).macs)
