"""Detection in a whole recipe: boxes of one's own, a detector fitted on them, a student, a bundle that writes GeoJSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsedge.cli.main import run_app

EDGE, TILE = 192, 32
NAMES = ["red thing", "green thing"]
CONTENT: dict[str, Any] = {
    "name": "objects",
    "threads": 1,
    "teacher": {
        "name": "l-ffca-yolo",
        "classes": NAMES,
        "fit": {"steps": 50, "views": 64, "batch": 8, "lr": 0.02, "tile": TILE, "validate_every": 25,
                "arch": {"width": 0.125, "depth": 0.1}},
    },
    "data": {
        "samples": {"source": "boxes", "root": ".", "options": {"annotations": ["boxes.csv"], "tile": TILE, "block": 1}},
        "calibration": {"tiles": 0},
        "augment": {"mix": 0.3},
    },
    "student": {"name": "slim-detector", "stem": 8, "encoder": [8, 16], "blocks": [0, 0], "decoder": [16], "levels": [1],
                "head": 16},
    "steps": [{"distill": {"steps": 60, "views": 64, "batch": 8, "lr": 0.02, "validate_every": 30, "labels": 0.5}}],
    "boxes": {"score": 0.3},
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": "ap50", "min": 0.3}, {"metric": "agreement", "min": 0.1}],
}  # fmt: skip


def pictures(folder: Path) -> list[tuple[int, ...]]:
    """Bright rectangles, one at most in each cell of 16 pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(40, 80, (3, EDGE, EDGE)).astype(np.uint8)
    objects = []
    for y in range(0, EDGE, 16):
        for x in range(0, EDGE, 16):
            if rng.random() < 0.6:
                w, h = rng.integers(6, 11, 2)
                a, b, k = x + rng.integers(2, 15 - w), y + rng.integers(2, 15 - h), int(rng.random() < 0.4)
                image[k, b : b + h, a : a + w] = 220
                objects.append((int(a), int(b), int(a + w), int(b + h), k))
    profile = {"driver": "GTiff", "height": EDGE, "width": EDGE, "count": 3, "dtype": "uint8", "photometric": "RGB",
               "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}  # fmt: skip
    with rasterio.open(folder / "scene.tif", "w", **profile) as file:
        file.write(image)
    rows = "".join(f"scene.tif,{a},{b},{c},{d},{NAMES[k]}\n" for a, b, c, d, k in objects)
    (folder / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,label\n" + rows)
    return objects


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("objects")
    count = len(pictures(folder))
    (folder / "recipe.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder, count, json.loads((folder / "run/report.json").read_text())


def test_teacher_and_student_find_objects_on_held_out_blocks(finished: tuple[Path, int, dict[str, Any]]) -> None:
    folder, _, report = finished
    target = report["targets"][0]
    assert report["teacher"]["metrics"]["ap50"] > 0.3 and target["metrics"]["ap50"] > 0.3
    assert set(target["metrics"]["ap50_by_class"]) == set(NAMES) and 0 < target["agreement"] <= 1
    assert [s["name"] for s in report["stages"]][:3] == ["data", "fit", "teacher"]
    page = (folder / "run/report.html").read_text()
    assert "AP50" in page and "objects: labels" in page and "test sample" in page
    manifest = json.loads((folder / "run/bundles/openvino-cpu-f32/manifest.json").read_text())
    settings = {"score": 0.3, "nms_iou": 0.45, "max_detections": 300, "oriented": False}
    assert manifest["boxes"] == settings and manifest["task"] == "detection"


def test_the_bundle_finds_objects_of_a_scene(finished: tuple[Path, int, dict[str, Any]], tmp_path: Path) -> None:
    folder, count, _ = finished
    bundle = str(folder / "run/bundles/openvino-cpu-f32")
    scene, bands, out = str(folder / "scene.tif"), ["--bands", "red,green,blue"], tmp_path / "objects.geojson"
    assert run_app(["infer", bundle, scene, *bands, "-o", str(out)]) == 0
    features = json.loads(out.read_text())["features"]
    assert 0.5 * count < len(features) < 2 * count
    assert {f["properties"]["class"] for f in features} == set(NAMES)
    lon, lat = features[0]["geometry"]["coordinates"][0][0]
    assert 14.9 < lon < 15.1 and 45.1 < lat < 45.2
    assert run_app(["infer", bundle, scene, *bands, "--score", "0.9999", "-o", str(out)]) == 0
    assert len(json.loads(out.read_text())["features"]) < len(features)
    assert run_app(["evaluate", bundle, scene, str(folder / "boxes.csv"), *bands]) == 0
    assert run_app(["infer", bundle, scene, *bands, "--score", "2", "-o", str(out)]) == 2
    assert run_app(["infer", bundle, scene, *bands, "-o", str(tmp_path / "objects.tif")]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["teacher.classes=[red thing]"], "has class 'green thing', the teacher finds red thing"),
        (["student.name=resnet18", "student.stem=8"], "student"),
        (["teacher.fit=null"], "comes without weights"),
        (["gates=[{metric: cosine, min: 0.5}]"], "cosine is of embedding, features and captioning"),
        (["teacher.fit.arch={depth: 0.1, breadth: 2}"], "teacher.fit.arch"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    pictures(tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps(CONTENT))
    sets = [part for change in changes for part in ("--set", change)]
    assert run_app(["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), *sets]) == 2
    assert words in capsys.readouterr().err
