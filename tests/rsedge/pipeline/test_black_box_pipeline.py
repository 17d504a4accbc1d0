"""An ONNX file as the teacher and ``student: auto`` in one whole recipe, from the file to the report; and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.cli.main import run_app
from rsedge.models.black_box import BlackBox
from rsedge.recipe.schema import Recipe

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
        "test": {"source": "spyndex-sentinel2", "simulated_clouds": 1},
        "calibration": {"tiles": 4},
        "block": 50,
    },
    "student": {"name": "auto", "speedup": 1e-4, "candidates": ["unet-mobilenetv4", "slim-unet"]},
    "steps": [{"distill": {"steps": 6, "views": 8, "batch": 2, "validate_every": 3}}],
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": "agreement", "min": 0.0}],
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the teacher's file."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 1)).eval()
    shapes = ({0: torch.export.Dim("n")},)
    torch.onnx.export(
        net, (torch.zeros(2, 4, 64, 64),), folder / "teacher.onnx", dynamo=True, verbose=False, dynamic_shapes=shapes
    )
    return folder


def changed(**teacher: Any) -> dict[str, Any]:
    return {**CONTENT, "teacher": {**CONTENT["teacher"], **teacher}}


def run(folder: Path, content: dict[str, Any]) -> int:
    (folder / "recipe.yaml").write_text(json.dumps(content))
    return run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")])


@pytest.fixture(scope="module")
def finished(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("box") / "whole"))
    assert run(folder, CONTENT) == 0
    return folder, json.loads((folder / "run/report.json").read_text())


def test_from_the_file_to_the_report(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    path, taught = folder / "teacher.onnx", report["teacher"]
    assert taught["name"] == f"onnx:{path}" and taught["macs"] == 64 * 64 * (4 * 9 * 16 + 16 * 3)
    assert taught["metrics"]["n"] > 1000 and taught["latency_ms"]["p50"] > 0
    assert {b["name"] for b in report["baselines"]} == {"teacher-openvino-f32", "teacher-openvino-int8"}
    assert 0 < report["targets"][0]["agreement"] <= 1
    spec = Recipe.model_validate_json(json.dumps(CONTENT)).teacher.contract
    with np.load(folder / "run/stages/data/test.npz") as tiles:
        dn = tiles["dn"][:2]
    with np.load(folder / "run/stages/teacher/test.npz") as z:
        kept = z["kept"][:2]
    own = BlackBox(str(path), spec)(torch.from_numpy(spec.normalise(dn))).argmax(1).numpy()
    assert (own == kept)[(dn > 0).any(1)].mean() > 0.999


def test_the_student_is_chosen_and_the_report_says_why(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    assert [s["name"] for s in report["stages"]] == [
        "data", "teacher", "student", "distill", "export", "verify", "bundle",
    ]  # fmt: skip
    (stage,) = (s for s in report["stages"] if s["name"] == "student")
    rows = {row["student"]: row for row in stage["details"]}
    assert set(rows) == {"unet-mobilenetv4", "slim-unet"}
    chosen = max(rows.values(), key=lambda row: row["params"])
    assert chosen["outcome"] == "kept" and chosen["reason"].startswith("taken: the most parameters")
    assert f"{chosen['student']}: the most parameters at measured latency within" in stage["reason"]
    assert "times faster than the teacher, measured" in stage["reason"]
    built = json.loads((folder / "run/stages/distill/model/structure.json").read_text())
    assert built["factory"] == chosen["student"]
    page = (folder / "run/report.html").read_text()
    assert chosen["reason"] in page and "unet-mobilenetv4" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**CONTENT, "student": {"name": "teacher"}, "steps": [{"prune": {}}]}, "an ONNX file is a black box"),
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
    tmp_path: Path, exported: Path, content: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, content) == 2
    assert re.search(message, capsys.readouterr().err), message
    assert not (tmp_path / "run/stages").exists()


@pytest.mark.slow  # the examples of docs/python.md take a binary map all the way in every test run
def test_a_binary_map_with_its_sigmoid_inside_goes_all_the_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid()).eval()
    torch.onnx.export(net, (torch.zeros(1, 4, 64, 64),), tmp_path / "teacher.onnx", dynamo=True, verbose=False)
    data = {**CONTENT["data"], "test": {"source": "spyndex-sentinel2"}}
    content = {**changed(classes=["water"]), "data": data, "student": {"name": "unet-mobilenetv4"}}
    assert run(tmp_path, content) == 0
    manifest = json.loads((tmp_path / "run/bundles/openvino-cpu-f32/manifest.json").read_text())
    assert manifest["classes"] == ["background", "water"]


def test_a_tile_the_student_cannot_take_is_our_error_with_a_fix_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.onnx.export(
        nn.Conv2d(4, 3, 1).eval(), (torch.zeros(1, 4, 80, 80),), tmp_path / "teacher.onnx", dynamo=True, verbose=False,
        dynamic_shapes=({2: torch.export.Dim("h"), 3: torch.export.Dim("w")},),
    )  # fmt: skip

    def ends(tile: int) -> int:
        content = {**changed(input={**CONTENT["teacher"]["input"], "tile": tile}), "student": {"name": "slim-unet"}}
        (tmp_path / "recipe.yaml").write_text(json.dumps(content))
        arguments = [
            "run",
            str(tmp_path / "recipe.yaml"),
            "--run-dir",
            str(tmp_path / f"run{tile}"),
            "--until",
            "data",
            "--json",
        ]
        return run_app(arguments)

    assert ends(80) == 2
    said = json.loads(capsys.readouterr().out)["error"]
    advice = re.search(r"set teacher\.input\.tile to (\d+)", said)
    assert "'slim-unet' cannot take the teacher's input (4, 80, 80)" in said and advice is not None
    assert ends(int(advice[1])) == 0
