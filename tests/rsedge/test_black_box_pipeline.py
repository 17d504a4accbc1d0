"""An ONNX file as the teacher of a whole recipe, from the file to the report; and the recipes that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.cli import run_app
from rsedge.models.black_box import BlackBox
from rsedge.recipe import Recipe

pytest.importorskip("spyndex")
CONTENT: dict[str, Any] = {
    "name": "black-box",
    "threads": 1,
    "teacher": {
        "name": "onnx:teacher.onnx",
        "input": {"bands": ["blue", "green", "red", "nir"], "tile": 64, "quantity": "boa_reflectance", "scale": 1e-4,
                  "nodata": 0, "mean": 0.2, "std": 0.2},
        "classes": ["clear", "cloud", "shadow"],
    },
    "data": {
        "train": [{"source": "spyndex-sentinel2"}],
        "validation": {"source": "spyndex-sentinel2", "simulated_clouds": 1},
        "calibration": {"tiles": 4},
        "block": 50,
    },
    "student": {"name": "slim-unet", "stem": 4, "encoder": [8, 8], "blocks": [0, 0], "decoder": [8, 8]},
    "steps": [{"distill": {"steps": 6, "views": 8, "batch": 2, "validate_every": 3}}],
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": "agreement", "min": 0.0}],
}  # fmt: skip


def teacher_file(folder: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 1)).eval()
    shapes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(
        net, (torch.zeros(2, 4, 64, 64),), folder / "teacher.onnx", dynamo=True, verbose=False, dynamic_shapes=shapes
    )
    return folder / "teacher.onnx"


def changed(**teacher: Any) -> dict[str, Any]:
    return {**CONTENT, "teacher": {**CONTENT["teacher"], **teacher}}


def run(folder: Path, content: dict[str, Any]) -> int:
    (folder / "recipe.yaml").write_text(json.dumps(content))
    return run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")])


def test_from_the_file_to_the_report(tmp_path: Path) -> None:
    path = teacher_file(tmp_path)
    assert run(tmp_path, CONTENT) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    taught = report["teacher"]
    assert taught["name"] == f"onnx:{path}" and taught["macs"] == 64 * 64 * (4 * 9 * 16 + 16 * 3)
    assert taught["metrics"]["n"] > 1000 and taught["latency_ms"]["p50"] > 0
    assert {b["name"] for b in report["baselines"]} == {"teacher-openvino-f32", "teacher-openvino-int8"}
    assert 0 < report["targets"][0]["agreement"] <= 1
    spec = Recipe.model_validate_json(json.dumps(CONTENT)).teacher.contract
    with np.load(tmp_path / "run/stages/data/validation.npz") as tiles:
        dn = tiles["dn"][:2]
    with np.load(tmp_path / "run/stages/teacher/validation.npz") as z:
        kept = z["kept"][:2]
    own = BlackBox(str(path), spec)(torch.from_numpy(spec.normalise(dn))).argmax(1).numpy()
    assert (own == kept)[(dn > 0).any(1)].mean() > 0.999


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**CONTENT, "student": {"name": "teacher"}, "steps": [{"prune": {}}]}, "nothing here rebuilds 'onnx:"),
        ({**CONTENT, "student": {"name": "narrow-copy", "arch": {}}}, "'narrow-copy' is made from the teacher"),
        (
            {**CONTENT, "steps": [{"distill": {"taps": [{"teacher": "a", "student": "b"}]}}]},
            "a black box, whose features cannot be tapped",
        ),
        (changed(name="onnx:none.onnx"), r"none\.onnx': no such file or folder"),
        (changed(classes=["clear", "cloud"]), "gives 3 outputs, but 2 classes are named"),
        (changed(classes=[]), r"gives 3 outputs; name them under teacher\.classes"),
        (
            changed(input={**CONTENT["teacher"]["input"], "tile": 32}),
            r"the contract under input gives \(1, 4, 32, 32\)",
        ),
    ],
)
def test_what_a_black_box_cannot_do_is_refused_before_any_stage(
    tmp_path: Path, content: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher_file(tmp_path)
    assert run(tmp_path, content) == 2
    assert re.search(message, capsys.readouterr().err), message
    assert not (tmp_path / "run/stages").exists()
