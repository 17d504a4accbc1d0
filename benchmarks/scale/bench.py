"""Memory of a whole recipe on scenes of 1, 10 and 100 times the pixels (`make bench-scale`). Writes docs/scale.md.

    python benchmarks/scale/bench.py [--edge PIXELS ...] [--keep FOLDER] [--render]

Begun in a control group with a limit on memory, a row says so: that is how a scene larger than memory is tried. The scenes have the
thirteen bands of Sentinel-2; the largest is as large as one of its tiles. What a process holds of its own
(`RssAnon`) cannot be taken back by the kernel; pages of files (`RssFile`) can.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from page import BANDS, PAGE, lines
from rasterio.transform import from_origin
from watching import watched_run

from rsedge.data import paged
from rsedge.data.scenes.fractal import fractal_field

EDGES = (1098, 3472, 10980)
RECIPE = """\
name: scale
threads: 1
teacher:
  name: smp:unet/resnet18
  checkpoint: teacher.pt
  input: {{bands: [{bands}], tile: 256, scale: 1.0e-4, nodata: 0, mean: 0.2, std: 0.1, gsd_range_m: [8, 70]}}
  classes: [clear, cloud]
data:
  train: [{{path: scene.tif}}]
  selection: {{fraction: {share}}}
  test: {{path: scene.tif, fraction: {share}}}
  calibration: {{fraction: {share}, tiles: 16}}
  block: 128
  augment: {{clouds: 0.0}}
student: {{name: slim-unet, stem: 8, encoder: [8, 16], blocks: [0, 0], decoder: [16, 8]}}
steps:
  - distill: {{steps: 60, views: 120, batch: 4}}
  - quantize: {{max_trials: 1, max_tunings: 1, max_drop: 1.0}}
targets: [openvino-cpu-int8]
gates: [{{metric: agreement, min: 0.0}}]
"""
SHARE = 0.02
"""Of a scene's blocks, that each other role than training is given."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, action="append", help="pixels of a scene's edge (more than once: these)")
    parser.add_argument("--keep", type=Path, help="make scenes and runs here and leave them")
    parser.add_argument("--render", action="store_true", help="only write the document from the rows there are")
    given = parser.parse_args()
    for edge in [] if given.render else given.edge or EDGES:
        with work_folder(given.keep) as work:
            PAGE.keep("memory", str(edge), measured(work, edge))
    PAGE.write(lines(PAGE.stored()))
    return 0


@contextlib.contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """A folder on a disk (`/tmp` may be memory), gone afterwards unless it is kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(dir=paged.folder()) as work:
        yield Path(work)


def measured(work: Path, edge: int) -> dict[str, Any]:
    """Makes a scene, runs the recipe on it, and watches."""
    write_scene(work / "scene.tif", edge)
    torch.manual_seed(0)
    teacher = smp.Unet("resnet18", encoder_weights=None, in_channels=len(BANDS), classes=2)
    torch.save(teacher.state_dict(), work / "teacher.pt")
    share = max(SHARE, 3.5 / (edge // 128) ** 2)
    took = watched_run(work, RECIPE.format(bands=", ".join(BANDS), share=share))
    return {"edge": edge, "pixels": edge * edge, "file_bytes": (work / "scene.tif").stat().st_size, **took}


def write_scene(path: Path, edge: int) -> None:
    """Ground of fractal texture in all bands as digital numbers, a strip at a time."""
    rng = np.random.default_rng(0)
    fields = [fractal_field(1024, beta, rng) for beta in (2.4, 2.8, 3.2)]
    spectra = rng.uniform(300, 3500, (len(BANDS), len(fields)))
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(BANDS), "height": edge, "width": edge, "crs": "EPSG:32633",
               "transform": from_origin(500000, 5200000, 10, 10), "nodata": 0, "tiled": True, "blockxsize": 256,
               "blockysize": 256, "interleave": "band", "bigtiff": "if_safer"}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = BANDS
        file.scales, file.offsets = [1e-4] * len(BANDS), [0.0] * len(BANDS)
        for row in range(0, edge, 256):
            rows, cols = np.arange(row, min(row + 256, edge)), np.arange(edge)
            parts = np.stack([f[(k + 1) * rows[:, None] % 1024, (k + 1) * cols % 1024] for k, f in enumerate(fields)])
            values = np.tensordot(spectra, parts, 1) + rng.normal(0, 40, (1, len(rows), edge))
            file.write(values.clip(1, 20000).astype(np.uint16), window=((row, int(rows[-1]) + 1), (0, edge)))


if __name__ == "__main__":
    sys.exit(main())
