"""Olive's static quantization of the teacher for ONNX Runtime, in a venv of its own (`make bench-olive`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
from contender import Made
from material import Material
from results import ROOT

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx, set_metadata
from rsedge.results.records import Teacher

PYTHON = ROOT / ".venv-olive" / "bin" / "python"
SCRIPT = Path(__file__).with_name("olive_side.py")
QUIET = {"OLIVE_DISABLE_TELEMETRY": "1"}


def make(material: Material, folder: Path) -> Made:
    """Raises MissingCapability without the venv, RequestError with Olive's last line where it fails."""
    if not PYTHON.exists():
        raise MissingCapability("Olive is not installed: `make bench-olive` does so, in a venv of its own")
    ctx, path, tiles = material.ctx, folder / "model.onnx", folder / "tiles.npy"
    float32 = export_onnx(
        Deployable(ctx.teacher.net, ctx.spec, ctx.task.output), ctx.spec, ctx.classes, folder / "f32.onnx"
    )
    np.save(tiles, np.stack(list(ctx.calibration)), allow_pickle=False)
    command = [str(PYTHON), str(SCRIPT), str(float32.path), str(tiles), str(path)]
    done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True)
    if done.returncode:
        raise RequestError(f"Olive: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    model = onnx.load(path)
    set_metadata(model, ctx.spec, ctx.classes)
    onnx.save(model, path)
    return Made(model=str(path), runtime="onnxruntime", macs=material.line.stages.results.of(Teacher).macs)
