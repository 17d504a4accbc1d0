"""Super-resolution in one whole recipe: an ONNX file twice as fine as its input, to bundles and a finer GeoTIFF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from affine import Affine
from torch import Tensor, nn

import rsedge
from rsedge.cli.main import run_app
from rsedge.data.metrics.images import psnr
from rsedge.data.sets.scene_sources import load_scene
from tests import UNTUNED

pytest.importorskip("spyndex")
BANDS, TILE = ("blue", "green", "red", "nir"), 16
TRANSFORM = Affine(20.0, 0, 500_000, 0, -20.0, 4_600_000)
CONTENT: dict[str, Any] = {
    "name": "finer",
    "threads": 1,
    "teacher": {
        "name": "onnx:teacher.onnx", "task": "super-resolution",
        "input": {"bands": list(BANDS), "tile": TILE, "quantity": "boa_reflectance", "scale": 1e-4, "nodata": 0, "mean": 0.2,
                  "std": 0.2},
    },
    "data": {
        "samples": {"source": "finer", "options": {
            "scenes": [{"scene": "scene.tif", "finer": "finer.tif"}], "tile": TILE, "scale": 1e-4}},
        "calibration": {"tiles": 8},
    },
    "student": {"name": "slim-upscaler", "width": 16, "depth": 2},
    "steps": [
        {"distill": {"steps": 30, "views": 64, "batch": 8, "validate_every": 15}},
        {"prune": {"target": {"params_ratio": 0.8}, "steps": 1, "recovery_steps": 5, "max_drop": 1.0, "round_to": 4}},
        {"quantize": {"max_trials": 2, **UNTUNED, "qat": {"steps": 0}, "max_drop": 1.0, "max_reversions": 0}},
    ],
    "targets": ["openvino-cpu-f32", "openvino-cpu-int8"],
    "gates": [{"metric": "psnr", "max_drop": 6.0}, {"metric": "ssim", "min": 0.5}, {"metric": "teacher_psnr", "min": 20}],
}  # fmt: skip


class Bicubic(nn.Module):
    """Interpolation and a little sharpening."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.tensor([[0, -0.05, 0], [-0.05, 1.2, -0.05], [0, -0.05, 0]])
        self.sharpen = nn.Conv2d(
            len(BANDS), len(BANDS), 3, padding=1, padding_mode="replicate", groups=len(BANDS), bias=False
        )
        self.sharpen.weight.data.copy_(kernel.expand_as(self.sharpen.weight))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.sharpen(F.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=False))
        return found


def write(path: Path, reflectance: np.ndarray, transform: Affine) -> None:
    profile = {"driver": "GTiff", "count": len(BANDS), "height": reflectance.shape[1], "width": reflectance.shape[2],
               "dtype": "uint16", "crs": "EPSG:32631", "transform": transform, "nodata": 0}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.clip(np.rint(reflectance * 1e4), 1, 65535).astype(np.uint16) * (reflectance > 0))
        for i, name in enumerate(BANDS, start=1):
            file.set_band_description(i, name)


def material(folder: Path) -> np.ndarray:
    """Teacher, scene and finer scene: real pixels, and their means over 2 x 2. Returns the finer reflectance."""
    torch.onnx.export(
        Bicubic().eval(), (torch.zeros(1, 4, TILE, TILE),), folder / "teacher.onnx", dynamo=True, verbose=False
    )
    fine = load_scene("spyndex-sentinel2").select(BANDS)
    assert fine is not None
    fine = fine[:, :256, :256].copy()
    fine[:, :9, :9] = 0
    coarse = fine.reshape(4, 128, 2, 128, 2).mean((2, 4))
    coarse[:, :5, :5] = 0
    write(folder / "scene.tif", coarse, TRANSFORM)
    write(folder / "finer.tif", fine, TRANSFORM * Affine.scale(0.5))
    return fine


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("finer")
    fine = material(folder)
    (folder / "recipe.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder, fine


def test_the_report_has_both_figures_their_gates_and_pictures(finished: tuple[Path, np.ndarray]) -> None:
    folder, _ = finished
    report = json.loads((folder / "run/report.json").read_text())
    assert report["teacher"]["metrics"]["psnr"] > 30 and report["teacher"]["metrics"]["teacher_psnr"] == 100
    for target in report["targets"]:
        assert target["metrics"]["psnr"] > 25 and 0 < target["metrics"]["ssim"] <= 1
        assert {g["metric"]: g["passed"] for g in target["gates"]} == dict.fromkeys(
            ("psnr", "ssim", "teacher_psnr"), True
        )
    assert "finer scene" in (folder / "run/report.html").read_text()


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_bundle_writes_the_finer_geotiff(finished: tuple[Path, np.ndarray], precision: str, tmp_path: Path) -> None:
    folder, fine = finished
    bundle, out = folder / f"run/bundles/openvino-cpu-{precision}", tmp_path / "finer.tif"
    assert run_app(["infer", str(bundle), str(folder / "scene.tif"), "--output", str(out)]) == 0
    with rasterio.open(out) as file, rasterio.open(folder / "finer.tif") as truth:
        assert (file.crs, file.transform, file.shape) == (truth.crs, truth.transform, truth.shape)
        assert file.descriptions == BANDS and file.dtypes == ("float32",) * 4
        found = file.read()
    missing = np.zeros((256, 256), bool)
    missing[:10, :10] = True
    assert (np.isnan(found) == missing).all()
    assert psnr(found[None], fine[None], 1.0)[0] > 25
    assert np.array_equal(np.isnan(found), np.isnan(rsedge.load(bundle).predict(folder / "scene.tif")))


def test_tiles_are_blended_without_seams(finished: tuple[Path, np.ndarray]) -> None:
    """Far from tile edges the image is what a tile gives; at borders it lies between its neighbours."""
    folder, _ = finished
    with rsedge.load(folder / "run/bundles/openvino-cpu-f32") as bundle:
        whole, other = (bundle.predict(folder / "scene.tif", overlap=n) for n in (4, 8))
    assert np.nanmax(np.abs(whole - other)) < 0.2 and np.nanmean(np.abs(whole - other)) < 2e-3


def test_evaluate_holds_it_against_the_finer_scene(
    finished: tuple[Path, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    bundle = folder / "run/bundles/openvino-cpu-f32"
    asked = [
        "evaluate",
        str(bundle),
        str(folder / "scene.tif"),
        str(folder / "finer.tif"),
        "--scale",
        "0.0001",
        "--json",
    ]
    assert run_app(asked) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["blocks"] == 4 and record["finer"] == 2
    assert record["psnr_interval"][0] <= record["psnr"] <= record["psnr_interval"][1] and record["psnr"] > 25
    assert run_app([*asked[:3], str(folder / "scene.tif"), "--scale", "0.0001"]) == 2
    assert "128x128 pixels, the scene has 256x256" in capsys.readouterr().err


def test_what_does_not_go_together_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    material(tmp_path)
    teacher = {**CONTENT["teacher"], "classes": ["blue", "green", "red", "thermal"]}
    cases = [
        ({**CONTENT, "teacher": teacher}, "'thermal' is no band of the contract"),
        ({**CONTENT, "gates": [{"metric": "kappa", "min": 0}]}, "kappa is of segmentation and classification"),
        (
            {**CONTENT, "student": {"name": "slim-unet"}},
            "'slim-unet' is for segmentation, the teacher does super-resolution",
        ),
        (
            {**CONTENT, "gates": [], "data": {"train": [{"path": "scene.tif"}], "test": {"path": "scene.tif"}}},
            "name its samples under data.samples",
        ),
    ]
    for number, (content, message) in enumerate(cases):
        (tmp_path / f"{number}.yaml").write_text(json.dumps(content))
        assert run_app(["run", str(tmp_path / f"{number}.yaml"), "--run-dir", str(tmp_path / f"run{number}")]) == 2
        assert message in capsys.readouterr().err, message
