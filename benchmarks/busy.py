"""Does other work on the machine change what a recipe decides? Runs a small real recipe alone and beside busy processes.

    python benchmarks/busy.py [--recipe FILE] [--busy N] [--out FILE]

The recipe (by default a cloud-mask student on data from installed wheels, pruned towards a latency, INT8 searched) runs up to
``quantize`` twice, the second time beside N processes that each keep one processor busy. The decisions are then held against
each other: which pruning steps were kept, what they removed, which INT8 setting was taken. Exit code 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPE = """\
name: busy
threads: 2
teacher: {name: ukis-csmask-4b-l2a}
data:
  train: [{source: spyndex-sentinel2}]
  test: {source: spyndex-sentinel2, simulated_clouds: 1}
  calibration: {tiles: 8}
  block: 50
student: {name: slim-unet, stem: 16, encoder: [16, 32], blocks: [1, 1], decoder: [32, 16]}
steps:
  - distill: {steps: 60, views: 32, batch: 4, validate_every: 60, autocast: "off"}
  - prune: {steps: 2, recovery_steps: 10, taylor_batches: 2, max_drop: 1.0, target: {latency_ratio: 0.7}}
  - quantize: {max_trials: 4, max_drop: 1.0, qat: {steps: 0}}
targets: [openvino-cpu-int8]
"""
BUSY = "while True: pass"


def decisions(run: Path) -> dict[str, Any]:
    """What pruning and the INT8 search decided in a finished run, and by what."""
    value = {s: json.loads((run / "stages" / s / "record.json").read_text())["value"] for s in ("prune", "quantize")}
    pruned, quantized = value["prune"]["record"], value["quantize"]["record"]
    return {
        "steps": [{"outcome": s["outcome"], "removed": s["removed"]} for s in pruned["steps"]],
        "params": pruned["after"]["params"],
        "int8": quantized["chosen"],
        "reasons": [*(s["reason"] for s in pruned["steps"]), quantized["reason"]],
    }


def differences(alone: dict[str, Any], beside: dict[str, Any]) -> list[str]:
    """Names of the decisions that are not the same; reasons hold figures and may differ."""
    return [name for name in alone if name != "reasons" and alone[name] != beside[name]]


def run_recipe(recipe: Path, folder: Path, busy: int) -> dict[str, Any]:
    """Runs up to ``quantize`` beside ``busy`` processes and returns what was decided."""
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        command = [
            sys.executable,
            "-m",
            "rsedge.cli",
            "run",
            str(recipe),
            "--run-dir",
            str(folder),
            "--until",
            "quantize",
        ]
        subprocess.run(command, check=True)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    return decisions(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, help="another recipe with prune and quantize steps")
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside the second run (default 1)")
    parser.add_argument("--out", type=Path, help="write both sets of decisions here as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        recipe = options.recipe or Path(name) / "recipe.yaml"
        if options.recipe is None:
            recipe.write_text(RECIPE)
        alone = run_recipe(recipe, Path(name) / "alone", 0)
        beside = run_recipe(recipe, Path(name) / "busy", options.busy)
    wrong = differences(alone, beside)
    for words, found in (("alone", alone), (f"beside {options.busy} busy", beside)):
        print(words)
        for reason in found["reasons"]:
            print(f"  {reason}")
    print("the same decisions" if not wrong else f"decided differently: {', '.join(wrong)}")
    if options.out is not None:
        options.out.write_text(json.dumps({"alone": alone, "busy": beside, "different": wrong}, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
