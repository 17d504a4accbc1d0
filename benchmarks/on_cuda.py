"""What a CUDA GPU changes: distillation there against the CPU, and networks in torch with CUDA graphs against OpenVINO f32.

    python benchmarks/on_cuda.py recipes/cloud-mask.yaml --steps 120 --output cuda.json

The recipe's distillation runs twice with the same seed and views and the teacher's outputs cached, in float32 without TF32, so
that the losses can be compared; a third time as recipes run it (autocast where it is faster). Teacher and student then run from
digital numbers to logits on the recipe's selection tiles.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rsedge.data.errors import RsedgeError
from rsedge.data.files import read_json, write_json
from rsedge.devices.onboard.stats import latency
from rsedge.export.onnx.graph import Deployable
from rsedge.models.structure import load_model
from rsedge.models.students import build_student
from rsedge.pipeline.run import run_recipe
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, cpu_count
from rsedge.stages.teacher_model import recipe_teacher
from rsedge.tasks.scene_data import JudgedTiles

PRECISIONS = {"f32": None, "fp16": torch.float16}
"""Autocast dtype of each; f32 is without TF32."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe over scenes")
    parser.add_argument("--steps", type=int, default=120, help="distillation steps")
    parser.add_argument("--views", type=int, default=480)
    parser.add_argument("--threads", type=int, default=cpu_count(), help="of the CPU")
    parser.add_argument("--runs", type=int, default=300, help="timed runs of each network")
    parser.add_argument("--output", type=Path, help="also write the full record as JSON")
    return parser.parse_args()


def distilled(given: argparse.Namespace, folder: Path, device: str, autocast: str) -> tuple[Recipe, dict[str, Any]]:
    """The recipe's data, teacher and distillation on one device; its record."""
    recipe = load_recipe(given.recipe, [f"device={device}", f"threads={given.threads}"])
    settings = {"steps": given.steps, "views": given.views, "cache": "always", "autocast": autocast,
                "validate_every": given.steps, "checkpoint_every": given.steps}  # fmt: skip
    distill = recipe.distill.model_copy(update=settings)
    step = recipe.steps[0].model_copy(update={"distill": distill})
    recipe = recipe.model_copy(
        update={"steps": (step,), "targets": ("openvino-cpu-f32",), "gates": (), "mission": None}
    )
    run_recipe(recipe, folder, until="export")
    found: dict[str, Any] = read_json(folder / "stages/distill/record.json")["value"]["record"]
    return recipe, found


def losses(record: dict[str, Any]) -> np.ndarray:
    return np.array([row["loss"] for row in record["history"]])


def compare_training(given: argparse.Namespace, folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """Loss curves and seconds on the CPU, on CUDA alike, and on CUDA as recipes run it; data and teacher are made once."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    recipe, cpu = distilled(given, folder, "cpu", "off")
    _, cuda = distilled(given, folder, "cuda", "off")
    torch.backends.cudnn.allow_tf32 = True
    _, quick = distilled(given, folder, "cuda", "auto")
    apart = np.abs(losses(cuda) - losses(cpu)) / losses(cpu)
    return recipe, {
        "steps": given.steps, "threads": given.threads, "cuda_autocast": quick["autocast"],
        "cpu_seconds": cpu["seconds"], "cuda_seconds": cuda["seconds"], "cuda_auto_seconds": quick["seconds"],
        "cpu_loss": losses(cpu).tolist(), "cuda_loss": losses(cuda).tolist(), "cuda_auto_loss": losses(quick).tolist(),
        "relative_difference": {"first": float(apart[0]), "median": float(np.median(apart)), "largest": float(apart.max())},
        "score": {"cpu": cpu["best_score"], "cuda": cuda["best_score"], "cuda_auto": quick["best_score"]},
    }  # fmt: skip


def captured(graph: nn.Module, dn: torch.Tensor, dtype: torch.dtype | None) -> Callable[[np.ndarray], np.ndarray]:
    """A network on the GPU as a CUDA graph, copies of tile and logits included."""
    entry = dn.cuda()

    def forward() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None):
            logits: torch.Tensor = graph(entry)[0]
            return logits

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        out = forward()

    def run(tile: np.ndarray) -> np.ndarray:
        entry.copy_(torch.from_numpy(tile))
        recorded.replay()
        return out.cpu().numpy()

    return run


def timed(run: Callable[[np.ndarray], np.ndarray], tile: np.ndarray, runs: int) -> dict[str, float]:
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        run(tile)
        samples.append(1e3 * (time.perf_counter() - start))
    return latency(samples)


def compare_network(net: nn.Module, model: Path, tiles: np.ndarray, runs: int) -> dict[str, Any]:
    """A network's CUDA graphs against its OpenVINO f32 model on the tiles: classes, logits, latency at batch 1."""
    with contextlib.closing(open_session(model, "openvino", precision="f32")) as session:
        wanted = np.concatenate([session({INPUT: tile[None]})["logits"].copy() for tile in tiles])
        rows: dict[str, Any] = {"openvino f32": timed(lambda tile: session({INPUT: tile})["logits"], tiles[:1], runs)}
        graph = Deployable(net, session.input_spec).cuda()
    torch.backends.cudnn.allow_tf32 = False
    for name, dtype in PRECISIONS.items():
        run = captured(graph, torch.from_numpy(tiles[:1]), dtype)
        found = np.concatenate([run(tile[None]) for tile in tiles])
        rows[f"cuda graph {name}"] = {
            **timed(run, tiles[:1], runs),
            "max_abs_difference": float(np.abs(found - wanted).max()),
            "logit_scale": float(np.abs(wanted).max()),
            "classes_agree": float((found.argmax(1) == wanted.argmax(1)).mean()),
        }
    return rows


def table(training: dict[str, Any], networks: dict[str, dict[str, Any]]) -> str:
    apart = training["relative_difference"]
    lines = [
        f"distill, {training['steps']} steps: CPU ({training['threads']} threads) {training['cpu_seconds']:.1f} s, "
        f"CUDA f32 {training['cuda_seconds']:.1f} s, CUDA with autocast '{training['cuda_autocast']}' "
        f"{training['cuda_auto_seconds']:.1f} s: {training['cpu_seconds'] / training['cuda_auto_seconds']:.1f} times faster",
        f"loss, CUDA f32 against CPU: {apart['first']:.1e} apart at first, median {apart['median']:.1e}, "
        f"largest {apart['largest']:.1e}",
        "| network | runtime | p50 ms | p99 ms | largest difference / largest logit | same class |", "|---" * 6 + "|",
    ]  # fmt: skip
    for name, rows in networks.items():
        for runtime, row in rows.items():
            apart = (
                f"{row['max_abs_difference']:.1e} / {row['logit_scale']:.0f} | {row['classes_agree']:.5f}"
                if "logit_scale" in row
                else "|"
            )
            lines.append(f"| {name} | {runtime} | {row['p50']:.3f} | {row['p99']:.3f} | {apart} |")
    return "\n".join(lines)


def main() -> int:
    given = arguments()
    if not torch.cuda.is_available():
        print("error: torch sees no CUDA GPU", file=sys.stderr)
        return 4
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        try:
            recipe, training = compare_training(given, folder)
        except RsedgeError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        stages = folder / "stages"
        tiles = JudgedTiles.load(stages / "data/selection.npz").dn
        nets = {
            "teacher": (recipe_teacher(recipe.teacher).net, stages / "teacher/teacher-f32.xml"),
            "student": (load_model(stages / "distill/model", build_student), stages / "export/student-f32.xml"),
        }
        networks = {name: compare_network(net, model, tiles, given.runs) for name, (net, model) in nets.items()}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(table(training, networks))
    if given.output:
        write_json(
            given.output,
            {
                "gpu": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "training": training,
                "networks": networks,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
