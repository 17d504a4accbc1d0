"""Distillation of the cloud mask on CUDA against the CPU, with the same seed, views and teacher's outputs.

In f32 without TF32 twice, so that the losses can be compared; a third time as recipes run it (autocast where it is faster).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rsedge.data.files import read_json
from rsedge.pipeline.run import run_recipe
from rsedge.recipe.reading import load_recipe

if TYPE_CHECKING:
    from on_gpu import Setting

STEPS = 60


def measure(setting: Setting) -> dict[str, Any]:
    """Loss curves and steps a second; data, teacher and cache are made once, on the CPU."""
    steps, folder = 2 if setting.small else STEPS, setting.folder / "training"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    rows = {"CPU, f32": _distilled("cpu", "off", steps, folder)}
    if setting.device == "cuda":
        rows["CUDA, f32"] = _distilled("cuda", "off", steps, folder)
        torch.backends.cudnn.allow_tf32 = True
    rows[f"{setting.device.upper()}, as recipes run it"] = _distilled(setting.device, "auto", steps, folder)
    first = np.array(rows["CPU, f32"]["loss"])
    for row in rows.values():
        row["apart"] = float(np.median(np.abs(np.array(row["loss"]) - first) / first))
    return {"steps": steps, "threads": torch.get_num_threads(), "rows": rows}


def _distilled(device: str, autocast: str, steps: int, folder: Path) -> dict[str, Any]:
    settings = {"steps": steps, "views": 4 * steps, "cache": "always", "autocast": autocast, "validate_every": steps,
                "checkpoint_every": steps}  # fmt: skip
    sets = [f"steps.0.distill.{name}={value}" for name, value in settings.items()]
    more = [
        f"device={device}",
        "targets=[openvino-cpu-f32, openvino-cpu-int8]",
        "gates=[]",
        f"threads={torch.get_num_threads()}",
    ]
    run_recipe(load_recipe("quickstart", [*sets, *more]), folder, until="distill")
    found = read_json(folder / "stages/distill/record.json")["value"]["record"]
    return {"autocast": found["autocast"], "steps_per_second": round(steps / found["seconds"], 2), "score": found["best_score"],
            "loss": [row["loss"] for row in found["history"]]}  # fmt: skip
