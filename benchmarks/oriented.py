"""Are ships found better by turned boxes than by boxes along rows and columns, all else being equal?

Ships drawn on places of a real picture (the left of it to learn on, the right to judge on), one recipe twice: labels, teacher and
student turned, or not. Both students' bundles map the same scenes and are judged by the turned labels and by the boxes around them.

    python benchmarks/oriented.py PICTURE --seed 0 --folder ships [--upright]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rsedge
from rsedge.data.boxes.geometry import FOUND, TRUTH, Floats, cornered, places, upright
from rsedge.data.metrics.boxes import BoxComparison
from rsedge.data.metrics.figures import record_of
from tests import drawn_ships

TILE, TRAIN, TEST = 64, 6, 16
BANDS = ["red", "green", "blue"]
BIG: dict[str, Any] = {
    "stem": 16,
    "encoder": [24, 32, 48],
    "blocks": [0, 1, 1],
    "decoder": [32, 32],
    "levels": [1, 2],
    "head": 32,
}
SMALL: dict[str, Any] = {"stem": 8, "encoder": [16, 24], "blocks": [0, 1], "decoder": [24], "levels": [1], "head": 24}


def recipe(seed: int, oriented: bool, steps: int) -> dict[str, Any]:
    """The recipe, turned or not."""
    training = {"steps": steps, "views": 800, "batch": 8, "lr": 0.006, "validate_every": 100}
    return {
        "name": f"ships-{seed}-{'turned' if oriented else 'upright'}", "seed": seed, "threads": 1,
        "teacher": {
            "name": "student:slim-detector", "task": "detection", "classes": [drawn_ships.LABEL], "fit": training,
            "input": {"bands": BANDS, "tile": TILE, "dtype": "uint8", "scale": 1 / 255, "mean": 0.35, "std": 0.2},
            "arch": {**BIG, "oriented": oriented},
        },
        "data": {
            "samples": {"source": "boxes", "root": ".", "options": {"annotations": ["train*.txt"], "tile": TILE, "block": 1}},
            "calibration": {"tiles": 0}, "test": {"fraction": 0.1}, "selection": {"fraction": 0.15},
        },
        "student": {"name": "slim-detector", **SMALL}, "steps": [{"distill": {**training, "labels": 0.5}}],
        "boxes": {"score": 0.25, "oriented": oriented}, "targets": ["openvino-cpu-f32"],
        "gates": [{"metric": "ap50", "min": 0.0}],
    }  # fmt: skip


def around(table: Floats, columns: int) -> Floats:
    """A table of boxes with those along rows and columns around them."""
    return np.concatenate([upright(places(table, columns)), table[:, 4:columns]], 1).astype(np.float32)


def figures(found: list[Floats], truth: list[Floats]) -> dict[str, Any]:
    """AP50 with its interval over scenes, and AP50-95."""
    names = np.array([str(i) for i in range(len(truth))])
    record = record_of(BoxComparison("boxes", found, truth, [drawn_ships.LABEL], names, 0.25))
    return {name: record[name] for name in ("ap50", "ap50_interval", "ap50_95")}


def main() -> None:
    """Draws, runs, judges, prints one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--upright", action="store_true")
    given = parser.parse_args()
    folder, seed = given.folder / str(given.seed), given.seed
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(TRAIN):
        drawn_ships.scene(
            folder, f"train{number}", 384, 90, 1000 * seed + number, drawn_ships.Ground(given.picture, 0, 0.6)
        )
    tests = [
        drawn_ships.scene(folder, f"test{number}", 192, 22, 1000 * seed + 500 + number, drawn_ships.Ground(given.picture, 0.65, 1))
        for number in range(TEST)
    ]  # fmt: skip
    path = folder / f"{'upright' if given.upright else 'turned'}.yaml"
    path.write_text(json.dumps(recipe(seed, not given.upright, given.steps)))
    run = folder / path.stem
    rsedge.run(path, run_dir=run)
    with rsedge.load(run / "bundles" / "openvino-cpu-f32") as bundle:
        found = [bundle.predict(folder / f"test{i}.tif", bands=BANDS, score=0.01) for i in range(TEST)]
    truth = [np.column_stack([b[:, :4], np.zeros(len(b)), b[:, 4]]).astype(np.float32) for b in map(cornered, tests)]
    print(json.dumps({
        "seed": seed, "student": path.stem, "scenes": TEST, "ships": sum(map(len, truth)),
        "turned": figures(found, truth),
        "around": figures([around(f, FOUND) for f in found], [around(t, TRUTH) for t in truth]),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
