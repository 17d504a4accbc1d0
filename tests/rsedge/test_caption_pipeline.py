"""Captioning in a whole recipe: a tiny random LLaVA in its authors' files, its tower pruned and quantized, text from the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch

from rsedge.cli import run_app
from rsedge.data.images import read_rgb
from tests.rsedge.tiny_vlm import EDGE, TEMPLATE, pictures, save_llava, use_tiny_rows

pytest.importorskip("transformers")
pytest.importorskip("openvino_tokenizers")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TEXT = {"template": TEMPLATE, "prompt": "What is there?", "max_tokens": 6, "images": 4}
CONTENT: dict[str, Any] = {
    "name": "captions",
    "threads": 1,
    "teacher": {"name": "rs-llava", "checkpoint": "llava", "adapter": "adapter", "vision": "tower"},
    "data": {"samples": {"source": "captions:rsicd", "root": "rsicd"}, "calibration": {"tiles": 4}},
    "student": {"name": "teacher"},
    "steps": [
        {"distill": {"steps": 0, "views": 8, "batch": 4, "cache": "never", "autocast": "off"}},
        {"prune": {"target": {"params_ratio": 0.9}, "steps": 1, "recovery_steps": 6, "max_drop": 1.0, "round_to": 1,
                   "taylor_batches": 1}},
        {"quantize": {"max_drop": 1.0, "max_trials": 1}},
    ],
    "language": {**TEXT, "weights": "f32"},
    "targets": ["openvino-cpu-f32", "openvino-cpu-int8"],
    "gates": [
        {"metric": "cosine", "min": 0.5},
        {"metric": "token_agreement", "min": 0.0},
        {"metric": "rouge_l", "max_drop": 1.0},
        {"metric": "first_token_ms", "max": 60000.0},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("captions")
    model = save_llava(folder / "llava", folder / "adapter", folder / "tower")
    pictures(folder / "rsicd", 16)
    (folder / "recipe.yaml").write_text(json.dumps(CONTENT))
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_rows(patch)
        patch.setattr("rsedge.stages_deploy.MEASURE_SECONDS", 0.2)
        patch.setattr("rsedge.stages_captions.SPEED_SECONDS", 0.1)
        assert run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
        yield folder, model, json.loads((folder / "run/report.json").read_text())


def test_it_runs(finished: Any) -> None:
    folder, model, report = finished
    print(json.dumps(report["targets"], indent=1)[:3000])
    assert report["verdict"] == "passed"
