"""Change between two dates, in a whole recipe: pairs of GeoTIFFs, a siamese teacher, a siamese student, a map from the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from rsedge.cli.main import run_app

EDGE, TILE = 160, 32
CONTENT: dict[str, Any] = {
    "name": "change",
    "threads": 1,
    "teacher": {
        "name": "onnx:teacher.onnx",
        "input": {"bands": ["red", "nir"], "layout": "TCHW", "frames": 2, "tile": TILE, "scale": 1e-4, "nodata": 0,
                  "mean": 0.25, "std": 0.15, "quantity": "boa_reflectance"},
        "classes": ["no change", "change"],
    },
    "data": {
        "samples": {"source": "pairs", "options": {
            "pairs": [{"before": "before.tif", "after": "after.tif", "labels": "labels.tif"}],
            "tile": TILE, "bands": ["red", "nir"], "scale": 1e-4}},
        "calibration": {"tiles": 4},
    },
    "student": {"name": "siamese-unet", "stem": 4, "encoder": [8, 8], "blocks": [0, 0], "decoder": [8, 8]},
    "steps": [{"distill": {"steps": 200, "views": 64, "batch": 4, "validate_every": 50, "lr": 0.01}}],
    "targets": ["openvino-cpu-f32"],
    "gates": [{"metric": "f1", "max_drop": 1.0}, {"metric": "kappa", "min": -1.0}],
}  # fmt: skip


class Difference(nn.Module):
    """Change where the dates differ by more than a tenth of reflectance: what the scenes below hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apart = (x[:, 1] - x[:, 0]).abs().mean(1, keepdim=True) * 0.15
        return torch.cat([0.1 - apart, apart - 0.1], 1) * 60


def scenes(folder: Path) -> np.ndarray:
    """Two dates of smooth ground; fields brighten by 0.2. A corner of the second date is nodata."""
    rng = np.random.default_rng(1)
    ground = np.kron(rng.uniform(0.1, 0.3, (2, EDGE // 8, EDGE // 8)), np.ones((8, 8)))
    change = np.kron(rng.random((EDGE // 16, EDGE // 16)) < 0.3, np.ones((16, 16))).astype(np.uint8)
    dates = [ground, ground + 0.2 * change]
    dates = [np.round((d + rng.normal(0, 0.005, d.shape)) * 1e4).astype(np.uint16) for d in dates]
    dates[1][:, :10, :10] = 0
    grid = {"driver": "GTiff", "height": EDGE, "width": EDGE, "crs": "EPSG:32633",
            "transform": from_origin(500_000, 5_000_000, 10, 10)}  # fmt: skip
    for name, values in (("before", dates[0]), ("after", dates[1]), ("labels", change[None])):
        nodata = None if name == "labels" else 0
        with rasterio.open(
            folder / f"{name}.tif", "w", count=len(values), dtype=values.dtype, nodata=nodata, **grid
        ) as f:
            f.write(values)
    return change


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("change")
    change = scenes(folder)
    torch.onnx.export(
        Difference(), (torch.zeros(1, 2, 2, TILE, TILE),), folder / "teacher.onnx", dynamo=True, verbose=False
    )
    (folder / "recipe.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder, change, json.loads((folder / "run/report.json").read_text())


def test_the_student_learns_change_from_its_teacher(finished: tuple[Path, np.ndarray, dict[str, Any]]) -> None:
    _, _, report = finished
    taught, student = report["teacher"]["metrics"], report["targets"][0]["metrics"]
    assert taught["f1"] > 0.95 and taught["iou"]["change"] > 0.9 and taught["kappa"] > 0.9
    assert student["f1"] > 0.5 and report["targets"][0]["agreement"] > 0.8
    assert report["data"]["splits"]["test"]["labelled"]


def test_the_report_shows_both_dates_and_the_maps(finished: tuple[Path, np.ndarray, dict[str, Any]]) -> None:
    page = (finished[0] / "run/report.html").read_text()
    shown = [page.count(f"<figcaption>{title}<") for title in ("before", "after", "label", "student", "disagreement")]
    assert shown == [4] * 5


def test_the_bundle_maps_two_scenes(finished: tuple[Path, np.ndarray, dict[str, Any]], tmp_path: Path) -> None:
    folder, change, _ = finished
    bundle, out = str(folder / "run/bundles/openvino-cpu-f32"), tmp_path / "change.tif"
    scene = [bundle, str(folder / "before.tif")]
    dates = ["--after", str(folder / "after.tif"), "--bands", "red,nir"]
    assert run_app(["infer", *scene, *dates, "-o", str(out)]) == 0
    with rasterio.open(out) as found, rasterio.open(folder / "before.tif") as before:
        classes = found.read(1)
        assert found.crs == before.crs and found.transform == before.transform
    assert (classes[:10, :10] == 255).all() and (classes == 255).sum() == 100
    seen = classes != 255
    assert (classes == change)[seen].mean() > 0.8
    assert run_app(["evaluate", *scene, str(folder / "labels.tif"), *dates]) == 0
    assert run_app(["infer", *scene, "--bands", "red,nir", "-o", str(out)]) == 2
