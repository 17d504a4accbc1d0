"""An encoder out of a network, compressed as maps of features, flown with a head fitted on its own INT8 answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import timm
import torch

from rsedge.cli.main import run_app
from rsedge.runtimes.bundle.reading import Bundle
from tests import UNTUNED
from tests.runtimes import tiny_models as tiny

DATA = Path(os.environ.get("RSEDGE_DATA", "../shared/data")) / "sen1floods11_spain"
TILE, STRIDE, CHANNELS = 64, 8, 128
PLAIN = [word for name, value in UNTUNED.items() for word in ("--set", f"steps.quantize.{name}={value}")]


def scene_and_labels(folder: Path) -> tuple[Path, Path]:
    """Four bands of a flood scene with water labels, where it is on this machine; else fields, dark and bright."""
    image = fields = None
    if DATA.is_dir():
        with rasterio.open(DATA / "west_S2.tif") as file:
            image = file.read([2, 3, 4, 8]).clip(1, 20000).astype(np.uint16)
        with rasterio.open(DATA / "west_Label.tif") as file:
            fields = np.where(file.read(1) < 0, 255, file.read(1)).astype(np.uint8)
    else:
        rng = np.random.default_rng(0)
        fields = rng.integers(0, 2, (16, 8)).repeat(32, 0).repeat(32, 1).astype(np.uint8)
        image = np.repeat((1000 + 2000 * fields[None] + rng.normal(0, 100, fields.shape)).astype(np.uint16), 4, 0)
    scene = Path(tiny.write_scene(folder / "scene.tif", image, tiny.NAMES))
    with rasterio.open(scene) as like, rasterio.open(
        folder / "labels.tif", "w", driver="GTiff", height=fields.shape[0], width=fields.shape[1], count=1, dtype="uint8",
        crs=like.crs, transform=like.transform,
    ) as file:  # fmt: skip
        file.write(fields, 1)
    return scene, folder / "labels.tif"


def recipe_of(folder: Path, **more: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=0, in_chans=4)
    torch.save(net.state_dict(), folder / "resnet.pt")
    return {
        "name": "ground", "threads": 1,
        "teacher": {
            "name": "timm:resnet10t#net.layer2", "checkpoint": str(folder / "resnet.pt"),
            "input": {"bands": list(tiny.NAMES), "tile": TILE, "scale": 1e-4, "nodata": 0, "mean": 0.15, "std": 0.1},
        },
        "data": {"samples": {"source": "finer", "root": str(folder), "options": {
                     "scenes": [{"scene": "scene.tif"}], "tile": TILE, "bands": list(tiny.NAMES), "scale": 1e-4}},
                 "calibration": {"tiles": 8}},
        "student": {"name": "teacher"},
        "steps": [{"quantize": {"max_trials": 1, "max_reversions": 0, "qat": {"steps": 0}}}],
        "targets": ["openvino-cpu-f32", "openvino-cpu-int8"],
        "gates": [{"metric": "cosine", "min": 0.9}],
    } | more  # fmt: skip


def test_an_encoder_out_of_a_network_flies_with_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, labels = scene_and_labels(tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_of(tmp_path)))
    assert run_app(["run", str(tmp_path / "recipe.json"), "--run-dir", str(tmp_path / "run"), *PLAIN]) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert all(target["metrics"]["cosine"] > 0.9 for target in report["targets"])
    assert all(gate["passed"] for target in report["targets"] for gate in target["gates"])
    place = tmp_path / "run/bundles/openvino-cpu-int8"
    with Bundle.open(place) as opened:
        manifest = opened.manifest
    assert (manifest.task, manifest.stride, len(manifest.classes)) == ("features", STRIDE, CHANNELS)
    head = [
        "head",
        str(place),
        str(scene),
        "--labels",
        str(labels),
        "--classes",
        "land,water",
        "-o",
        str(tmp_path / "water.head"),
    ]
    key = str(tmp_path / "run/keys/signing.pem")
    assert run_app([*head, "--sign", key]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert f"from {CHANNELS} numbers of 'ground' at every 8x8 pixels" in said and "f1" in said
    out = tmp_path / "map.tif"
    assert run_app(["infer", str(place), str(scene), "-o", str(out), "--heads", str(tmp_path / "water.head")]) == 0
    assert "the encoder's own map is not written" in capsys.readouterr().out and not out.exists()
    with rasterio.open(tmp_path / "map.water.tif") as water, rasterio.open(labels) as known:
        truth, found = known.read(1), water.read(1)
    seen = (truth != 255) & (found != 255)
    assert (found[seen] == truth[seen]).mean() > max((truth[seen] == k).mean() for k in (0, 1))


def test_a_small_encoder_learns_the_map(tmp_path: Path) -> None:
    scene_and_labels(tmp_path)
    changes: dict[str, Any] = {
        "student": {"name": "slim-encoder", "widths": [8, 16, 24, 32]}, "targets": ["openvino-cpu-f32"],
        "steps": [{"distill": {"steps": 120, "views": 64, "batch": 8, "validate_every": 60}}],
        "gates": [{"metric": "cosine", "min": 0.5}],
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_of(tmp_path) | changes))
    assert run_app(["run", str(tmp_path / "recipe.json"), "--run-dir", str(tmp_path / "run")]) == 0
    with Bundle.open(tmp_path / "run/bundles/openvino-cpu-f32") as opened:
        assert (opened.manifest.stride, len(opened.manifest.classes)) == (STRIDE, CHANNELS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet10t#net.layer9", "'net.layer9' is no feature of"),
        ("ukis-csmask-6b-l2x#net.decoder", "'ukis-csmask-6b-l2x' is unknown"),
    ],
)
def test_features_that_are_not_there_are_named(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene_and_labels(tmp_path)
    recipe = recipe_of(tmp_path)
    recipe["teacher"] = recipe["teacher"] | {"name": name} if name.startswith("timm") else {"name": name}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert run_app(["run", str(tmp_path / "recipe.json"), "--run-dir", str(tmp_path / "run"), "--until", "data"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
