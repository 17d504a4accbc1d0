"""A recipe whose teacher has more than a billion parameters: time and memory by stage (`make bench-large-teacher`).

    python benchmarks/scale/teacher.py [--teacher NAME] [--keep FOLDER]

The teacher is a row of the zoo at its published size with random weights: what it takes is measured, not what it knows. The scene
is drawn. Wants 20 GB of disk, and 16 GB of memory for itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from bench import work_folder
from page import PAGE, lines
from rasterio.transform import from_origin
from watching import watched_run

from rsedge.data.bands import InputSpec
from rsedge.data.scenes.fractal import fractal_field
from rsedge.models.families import family
from rsedge.models.zoo import TeacherRow, teacher_row

TEACHER = "hypersigma-seg-h"
EDGE, FIELDS = 768, 6
RECIPE = """\
name: large-teacher
threads: {threads}
teacher: {{name: {teacher}, checkpoint: teacher.pth}}
data:
  train: [{{path: scene.tif}}]
  selection: {{fraction: 0.15}}
  test: {{path: scene.tif, fraction: 0.15}}
  calibration: {{fraction: 0.15, tiles: 8}}
  block: 128
  augment: {{plain: 1}}
student: {{name: slim-unet, stem: 16, encoder: [16, 32], blocks: [0, 0], decoder: [32, 16]}}
steps:
  - distill: {{steps: 40, views: 24, batch: 4}}
  - quantize: {{max_trials: 1, max_tunings: 1, max_drop: 1.0}}
targets: [openvino-cpu-int8]
gates: [{{metric: agreement, min: 0.0}}]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default=TEACHER, help=f"a row over scenes that is segmented; default {TEACHER}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="make checkpoint, scene and run here and leave them")
    given = parser.parse_args()
    with work_folder(given.keep) as work:
        PAGE.keep("teachers", given.teacher, measured(work, teacher_row(given.teacher), given.threads))
    PAGE.write(lines(PAGE.stored()))
    return 0


def measured(work: Path, row: TeacherRow, threads: int) -> dict[str, Any]:
    """Runs the recipe in a process of its own, and reads what its stages took."""
    write_checkpoint(work / "teacher.pth", row)
    write_scene(work / "scene.tif", row.input_spec)
    took = watched_run(work, RECIPE.format(teacher=row.name, threads=threads))
    report = json.loads((work / "run" / "report.json").read_text(encoding="utf-8"))
    stages = {s["name"]: {"seconds": s["seconds"], "memory_bytes": s["memory_bytes"]} for s in report["stages"]}
    return {"title": row.title, "params": row.params, "stages": stages, "threads": threads, **took}


def write_checkpoint(path: Path, row: TeacherRow) -> None:
    """The row's network with the weights of a fixed seed, under its authors' names."""
    if path.is_file():
        return
    torch.manual_seed(0)
    torch.save(family(row.family).build(**row.arch).state_dict(), path)


def write_scene(path: Path, spec: InputSpec) -> None:
    """Texture in all bands, each of mean 0 and deviation 1, as whitened components are."""
    rng = np.random.default_rng(0)
    fields = np.stack([fractal_field(1024, beta, rng)[:EDGE, :EDGE] for beta in np.linspace(2.2, 3.2, FIELDS)])
    mixed = np.tensordot(rng.normal(size=(spec.channels, FIELDS)), fields - fields.mean((1, 2), keepdims=True), 1)
    values = mixed / mixed.std((1, 2), keepdims=True) + 0.3 * rng.normal(size=mixed.shape)
    profile = {"driver": "GTiff", "dtype": "float32", "count": spec.channels, "height": EDGE, "width": EDGE, "crs": "EPSG:32633",
               "transform": from_origin(500000, 5200000, 10, 10), "nodata": -9999.0, "tiled": True, "blockxsize": 256,
               "blockysize": 256}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = spec.band_names
        file.write(values.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
