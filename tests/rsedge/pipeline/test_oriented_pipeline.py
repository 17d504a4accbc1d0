"""Turned boxes in a whole recipe: labels as outlines, a teacher of our own fitted on them, a student, a bundle, a map of ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.cli.main import run_app
from tests import drawn_ships

TILE = 64
BANDS = ["--bands", "red,green,blue"]
SMALL = {"stem": 8, "encoder": [12, 16], "blocks": [0, 1], "decoder": [16], "levels": [1], "head": 16}
CONTENT: dict[str, Any] = {
    "name": "ships",
    "threads": 1,
    "teacher": {
        "name": "student:slim-detector",
        "classes": [drawn_ships.LABEL],
        "task": "detection",
        "input": {"bands": ["red", "green", "blue"], "tile": TILE, "dtype": "uint8", "scale": 1 / 255, "mean": 0.35, "std": 0.2},
        "arch": {**SMALL, "oriented": True},
        "fit": {"steps": 300, "views": 400, "batch": 8, "lr": 0.01, "validate_every": 100},
    },
    "data": {
        "samples": {"source": "boxes", "root": ".", "options": {"annotations": ["harbour.txt"], "tile": TILE, "block": 1}},
        "calibration": {"tiles": 8},
    },
    "student": {"name": "slim-detector", **SMALL},
    "steps": [{"distill": {"steps": 250, "views": 400, "batch": 8, "lr": 0.01, "validate_every": 125, "labels": 0.5}}],
    "boxes": {"score": 0.2, "oriented": True},
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": "ap50", "min": 0.2}],
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ships")
    drawn_ships.scene(folder, "harbour", 448, 170, seed=0)
    drawn_ships.scene(folder, "other", 192, 30, seed=1)
    (folder / "recipe.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder, json.loads((folder / "run/report.json").read_text())


@pytest.mark.slow  # trains two detectors, half a minute
def test_teacher_and_student_find_turned_ships_on_held_out_blocks(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    assert report["teacher"]["metrics"]["ap50"] > 0.2 and report["targets"][0]["metrics"]["ap50"] > 0.2
    assert "objects: labels" in (folder / "run/report.html").read_text()
    for target in CONTENT["targets"]:
        manifest = json.loads((folder / f"run/bundles/{target}/manifest.json").read_text())
        assert manifest["boxes"]["oriented"] is True and manifest["task"] == "detection"


@pytest.mark.slow  # as the one above
def test_the_bundle_gives_turned_outlines_and_headings(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    bundle, scene, out = folder / "run/bundles/openvino-cpu-f32", str(folder / "other.tif"), tmp_path / "ships.geojson"
    assert run_app(["infer", str(bundle), scene, *BANDS, "-o", str(out)]) == 0
    features = json.loads(out.read_text())["features"]
    assert len(features) > 10
    said = [f["properties"] for f in features]
    assert all(p["length"] >= p["width"] and 0 <= p["heading"] < 180 and -90 <= p["angle"] < 90 for p in said)
    assert np.std([p["heading"] for p in said]) > 20
    assert run_app(["evaluate", str(bundle), scene, str(folder / "other.txt"), *BANDS]) == 0
    # What it found, as labels: evaluate reads its own GeoJSON.
    assert run_app(["evaluate", str(bundle), scene, str(out), *BANDS]) == 0
    assert run_app(["verify", str(bundle)]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["teacher.arch.oriented=false"], "gives no angles"),
        (["boxes.oriented=false"], "gives turned boxes"),
        (["teacher.fit=null"], "needs weights"),
        (["teacher.name=student:narrow-copy"], "is made from a teacher"),
        (["teacher.fit.tile=64"], "takes the tile under input"),
        (["data.samples.options.annotations=[flat.csv]"], "lie along rows and columns"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    drawn_ships.scene(tmp_path, "harbour", 448, 60, seed=0)
    (tmp_path / "flat.csv").write_text("image,xmin,ymin,xmax,ymax,label\nharbour.tif,10,10,40,30,ship\n")
    few = {**CONTENT, "teacher": {**CONTENT["teacher"], "fit": {"steps": 1, "views": 4, "validate_every": 1}}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(few))
    sets = [part for change in changes for part in ("--set", change)]
    assert run_app(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), *sets]) == 2
    assert words in capsys.readouterr().err
