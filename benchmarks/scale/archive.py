"""How fast `rsedge archive` maps scenes with one worker and with two (`make bench-archive`), which docs/scale.md reckons with.

    python benchmarks/scale/archive.py BUNDLE [--scenes N] [--edge PIXELS] [--rounds N]

Scenes are made of a real chip (RSEDGE_DATA), deflated. The ways take turns; the median of their rounds counts. Constants of the
estimates for larger archives are the bytes of a scene and of its map, and the seconds that a scene takes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from page import PAGE, lines

import rsedge
from rsedge.data.root import data_root

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scene"))

from material import make_scene

WORKERS = (1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--edge", type=int, default=3000, help="of the scenes (pixels)")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PAGE.keep(
            "archive", given.bundle.name, measured(Path(folder), given.bundle, given.scenes, given.edge, given.rounds)
        )
    PAGE.write(lines(PAGE.stored()))
    return 0


def measured(work: Path, bundle: Path, scenes: int, edge: int, rounds: int) -> dict[str, Any]:
    """Seconds of the whole command by its number of workers, and what lies on the disk of a scene and of its map."""
    with rsedge.load(bundle) as opened:
        spec = opened.spec
    first = make_scene(work / "scene-0.tif", spec, "deflate", edge, data_root())
    for number in range(1, scenes):
        shutil.copyfile(first, work / f"scene-{number}.tif")
    took: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers in WORKERS:
            took[workers].append(_archived(work, bundle, workers))
    maps = [path.stat().st_size for path in (work / "maps").glob("*.tif")]
    return {"scenes": scenes, "edge": edge, "scene_bytes": first.stat().st_size, "map_bytes": sum(maps) / len(maps),
            "seconds": {str(workers): median(found) for workers, found in took.items()}, "rounds": took}  # fmt: skip


def _archived(work: Path, bundle: Path, workers: int) -> float:
    """Seconds that the command takes, its start among them."""
    shutil.rmtree(work / "maps", ignore_errors=True)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rsedge.cli", "archive", str(bundle), str(work / "scene-*.tif"), "--output-dir",
         str(work / "maps"), "--workers", str(workers)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
