"""A student that looks at fewer bands than its teacher, in a whole recipe: weighed, chosen, delivered, flown."""

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
from rsedge.runtimes.bundle.reading import Bundle
from tests import UNTUNED

EDGE, TILE, NAMES = 192, 32, ("green", "red", "nir")
CONTENT: dict[str, Any] = {
    "name": "fewer",
    "threads": 1,
    "teacher": {
        "name": "onnx:teacher.onnx",
        "input": {"bands": list(NAMES), "tile": TILE, "scale": 1e-4, "nodata": 0, "mean": 0.25, "std": 0.15,
                  "quantity": "boa_reflectance"},
        "classes": ["bare", "green"],
    },
    "data": {
        "train": [{"path": "scene.tif", "bands": list(NAMES), "scale": 1e-4, "quantity": "boa_reflectance"}],
        "test": {"path": "scene.tif", "bands": list(NAMES), "scale": 1e-4, "quantity": "boa_reflectance", "fraction": 0.3},
        "selection": {"fraction": 0.3}, "calibration": {"tiles": 4}, "block": 32,
    },
    "student": {"name": "slim-unet", "stem": 4, "encoder": [8, 8], "blocks": [0, 0], "decoder": [8, 8], "bands": 2},
    "importance": {"of": ["teacher", "student"], "orders": 4},
    "steps": [{"distill": {"steps": 60, "views": 32, "batch": 4, "validate_every": 30, "lr": 0.01}},
              {"quantize": {"max_trials": 1, **UNTUNED, "qat": {"steps": 0}}}],
    "targets": ["openvino-cpu-f32", "openvino-cpu-int8"],
    "gates": [{"metric": "agreement", "min": 0.0}],
}  # fmt: skip


class Greenness(nn.Module):
    """Green where the near infrared lies above the red; the green band says nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = x[:, 2:3] - x[:, 1:2]
        return torch.cat([-above, above], 1) * 4


@pytest.mark.slow  # a whole recipe: 20 s of processor time
def test_the_bands_that_matter_are_kept_and_the_bundle_asks_for_these_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rsedge.stages.verify.MEASURE_SECONDS", 0.3)
    rng = np.random.default_rng(1)
    ground = np.kron(rng.uniform(0.05, 0.5, (3, EDGE // 8, EDGE // 8)), np.ones((8, 8)))
    dn = np.round((ground + rng.normal(0, 0.005, ground.shape)) * 1e4).clip(1).astype(np.uint16)
    grid = {"driver": "GTiff", "height": EDGE, "width": EDGE, "crs": "EPSG:32633", "dtype": "uint16",
            "transform": from_origin(500_000, 5_000_000, 10, 10)}  # fmt: skip
    for name, values in (("scene", dn), ("flown", dn[1:])):
        with rasterio.open(f"{name}.tif", "w", count=len(values), **grid) as f:
            f.write(values)
            f.descriptions = NAMES[-len(values) :]
    torch.onnx.export(Greenness(), (torch.zeros(1, 3, TILE, TILE),), "teacher.onnx", dynamo=True, verbose=False)
    Path("recipe.yaml").write_text(json.dumps(CONTENT))
    assert run_app(["run", "recipe.yaml", "--run-dir", "run"]) == 0
    report = json.loads(Path("run/report.json").read_text())
    stages = {stage["name"]: stage for stage in report["stages"]}
    rows = {row["band"]: row for row in stages["bands"]["details"]}
    assert rows["green"]["agreement_loss"] == 0 and rows["green"]["shapley"] == 0
    assert min(rows[b]["agreement_loss"] for b in ("red", "nir")) > 0.1 and rows["without green too"]["bands_left"] == 2
    assert "looks at red, nir" in stages["bands"]["reason"]
    assert {row["band"] for row in stages["importance"]["details"]} == {"red", "nir"}
    assert any("The student looks at red, nir, the teacher at green, red, nir" in note for note in report["notes"])
    with Bundle.open(Path("run/bundles/openvino-cpu-f32"), key=Path("run/keys/signing.pub")) as bundle:
        assert bundle.manifest.input_spec.band_names == ("red", "nir")
    words = ["infer", "run/bundles/openvino-cpu-f32", "flown.tif", "-o", "map.tif", "--scale", "1e-4"]
    assert run_app(words) == 0
    with rasterio.open("map.tif") as found:
        same = (found.read(1) == (ground[2] > ground[1])).mean()
    assert same > 0.8, "taught by a teacher of three bands, flown on two"
