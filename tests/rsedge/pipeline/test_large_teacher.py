"""A teacher that counts as large: no INT8 of it but where a gate asks, its executable is not kept, its answers are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from rsedge.data.errors import RequestError
from rsedge.data.files import read_json, write_json
from rsedge.pipeline.run import Line, run_until
from rsedge.recipe.reading import load_recipe
from rsedge.stages import context, teacher
from tests.runtimes import tiny_models as tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    tiny.write_scene(folder / "scene.tif", rng.integers(500, 4000, (4, 320, 320)).astype(np.uint16), tiny.NAMES)
    torch.manual_seed(0)
    net = smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=2)
    torch.save(net.state_dict(), folder / "teacher.pt")
    return folder


def line(place: Path, run: Path, until: str, augment: Any = None, **band: Any) -> Line:
    """The recipe's stages; ``band`` is set of the teacher's contract."""
    latency = {"metric": "latency", "min_speedup": 0.1, "over": "teacher-openvino-int8", "target": "openvino-cpu-f32"}
    recipe = {
        "name": "large", "threads": 1,
        "teacher": {
            "name": "smp:unet/resnet18", "checkpoint": str(place / "teacher.pt"), "classes": ["a", "b"],
            "input": {"bands": list(tiny.NAMES), "tile": 64, "scale": 1e-4, "nodata": 0, "mean": 0.15, "std": 0.1} | band,
        },
        "data": {"train": [{"path": str(place / "scene.tif")}], "test": {"path": str(place / "scene.tif"), "fraction": 0.2},
                 "selection": {"fraction": 0.2}, "calibration": {"fraction": 0.2, "tiles": 4}, "block": 64,
                 "augment": augment or {}},
        "student": {"name": "slim-unet", "stem": 8, "encoder": [8, 8], "blocks": [0, 0], "decoder": [8, 8]},
        "steps": [{"distill": {"steps": 2, "views": 4, "batch": 2}}],
        "targets": ["openvino-cpu-f32"],
        "gates": [latency] if run.name == "asked" else [{"metric": "agreement", "min": 0.1}],
    }  # fmt: skip
    write_json(place / "recipe.json", recipe)
    return run_until(load_recipe(place / "recipe.json", []), run, until, quiet=True)


def test_a_large_teacher_is_compared_by_what_a_gate_asks(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = line(place, tmp_path / "small", "teacher")
    for module in (context, teacher):
        monkeypatch.setattr(module, "LARGE", 1000)
    large = line(place, tmp_path / "large", "distill")
    asked = line(place, tmp_path / "asked", "teacher")
    files = {
        name: sorted(p.name for p in (tmp_path / name / "stages/teacher").glob("*.xml"))
        for name in ("small", "large", "asked")
    }
    both = ["teacher-f32.xml", "teacher-int8.xml"]
    assert files == {"small": both, "large": ["teacher-f32.xml"], "asked": both}
    assert "teacher_function" in vars(small.ctx) and "teacher_function" not in vars(large.ctx) | vars(asked.ctx)
    views = np.stack([large.ctx.views(i) for i in range(2)])
    assert np.array_equal(small.ctx.ask_teacher(views)["logits"], large.ctx.ask_teacher(views)["logits"])
    record = read_json(tmp_path / "large/stages/distill/record.json")
    assert record["memory_bytes"] == large.stages.results["distill"].memory_bytes > 1e8


def test_bands_without_light_are_refused_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    """What the message says mends it."""
    names = [f"pc{i}" for i in range(4)]
    values = np.random.default_rng(0).integers(500, 4000, (4, 320, 320)).astype(np.uint16)
    tiny.write_scene(place / "scene.tif", values, tuple(names))
    with pytest.raises(RequestError, match=r"'pc0' has no wavelength.*set data.augment to \{plain: 1\}"):
        line(place, tmp_path / "run", "data", bands=names)
    assert "data" in line(place, tmp_path / "run", "data", augment={"plain": 1}, bands=names).stages.results
