"""How long a whole scene takes beside what none can do without and beside other ways (`make bench-scene`), into docs/scenes.md.

    python benchmarks/scene/bench.py [BUNDLE ...] [--kind KIND] [--edge 6000] [--memory] [--render]

BUNDLE: folders of bundles for the CPU; without any the recipe beside this file makes two. Scenes are made of a real chip
(RSEDGE_DATA). Rows are kept in benchmarks/results/scene.json as they end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import page
import rasterio
from material import KINDS, make_scene, make_sparse
from ways import WAYS

import rsedge
from rsedge.data.root import data_root
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.runtimes.inference.seams import part_of_scene, seams

HERE = Path(__file__).resolve().parent
MADE = HERE.parents[1] / "runs" / "scene"
MEMORY = {"4,000 x 4,000 x 6": 4000, "40,000 x 40,000 x 6": 40000}
"""Scenes for which memory is measured -> edge; all but empty, so that they take little time and disk."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    parser.add_argument("--kind", action="append", choices=KINDS, help="these scenes alone")
    parser.add_argument("--way", action="append", choices=WAYS, help="these ways alone, beside rsedge and the bound")
    parser.add_argument("--edge", type=int, default=6000, help="of the scenes (pixels)")
    parser.add_argument("--rounds", type=int, default=3, help="every way so many times, in turns; the median counts")
    parser.add_argument("--memory", action="store_true", help="measure peak memory by the size of the scene instead")
    parser.add_argument("--seams", action="store_true", help="measure seams and extents instead")
    parser.add_argument("--render", action="store_true", help="only write the page from the rows there are")
    given = parser.parse_args()
    if not given.render:
        bundles = given.bundles or _made()
        with tempfile.TemporaryDirectory() as folder:
            if given.memory:
                _memory(bundles[0], Path(folder))
            elif given.seams:
                _seams(bundles, given.edge, Path(folder))
            else:
                for kind in given.kind or KINDS:
                    _speed(bundles, kind, given.edge, given.way or list(WAYS), given.rounds, Path(folder))
    page.PAGE.write(page.lines(page.PAGE.stored()))
    return 0


def _made() -> list[Path]:
    subprocess.run(
        [sys.executable, "-m", "rsedge.cli", "run", str(HERE / "clouds.yaml"), "--run-dir", str(MADE)], check=True
    )
    return sorted((MADE / "bundles").iterdir())


def _speed(bundles: list[Path], kind: str, edge: int, ways: list[str], rounds: int, folder: Path) -> None:
    """A row a bundle: every way on one scene, one after the other."""
    with rsedge.load(bundles[0]) as opened:
        scene = make_scene(folder / "scene.tif", opened.spec, kind, edge, data_root())
    for bundle in bundles:
        with rsedge.load(bundle) as opened:
            name = f"{opened.target}, {kind}, {edge:,} x {edge:,} x {opened.spec.channels}"
        ours = folder / "rsedge.tif"
        turns: dict[str, list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for way in ("rsedge", "bound", *(w for w in ways if w not in ("rsedge", "bound"))):
                output = ours if way in ("rsedge", "bound") else folder / "other.tif"
                took = _run(way, bundle, scene, output)
                turns.setdefault(way, []).append(took | ({} if output == ours else {"agree": _agree(ours, output)}))
        middle = {way: sorted(took, key=_seconds)[len(took) // 2] for way, took in turns.items()}
        page.PAGE.keep("speed", name, {"scene_mb": scene.stat().st_size / 1e6, "rounds": rounds, "ways": middle})
    scene.unlink()


def _seconds(took: dict[str, Any]) -> float:
    """By which runs of one way are ordered: of the bound what it adds up."""
    return float(took["decode_s"] + took["infer_s"] + took["encode_s"] if "decode_s" in took else took["wall_s"])


def _run(way: str, bundle: Path, scene: Path, output: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "ways.py"), way, str(bundle), str(scene), str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _agree(one: Path, other: Path) -> float:
    with rasterio.open(one) as a, rasterio.open(other) as b:
        return float((a.read(1) == b.read(1)).mean())


def _memory(bundle: Path, folder: Path) -> None:
    """A row a size: what the process holds at most, of a scene with a few pixels seen in each row and column of blocks."""
    with rsedge.load(bundle) as opened:
        spec, target = opened.spec, opened.target
    for name, edge in MEMORY.items():
        scene = make_sparse(folder / "scene.tif", spec, edge)
        found = _run("rsedge", bundle, scene, folder / "map.tif")
        page.PAGE.keep("memory", f"{target}, {name}", {"scene_mb": scene.stat().st_size / 1e6, **found})
        scene.unlink()


def _seams(bundles: list[Path], edge: int, folder: Path) -> None:
    """A row a bundle, on the scene without compression."""
    for bundle in bundles:
        with rsedge.load(bundle) as opened:
            scene = make_scene(folder / "scene.tif", opened.spec, "uncompressed", edge, data_root())
            name = f"{opened.target}, {edge:,} x {edge:,} x {opened.spec.channels}"
            with SceneReader(scene, opened.spec) as reader:
                part = part_of_scene(reader)
                assert part is not None
                found = seams(opened.session, part, opened.classes)
            page.PAGE.keep("seams", name, {**found.model_dump(), "over": found.over})


if __name__ == "__main__":
    sys.exit(main())
