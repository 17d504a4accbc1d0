"""Scenes in a row in one process: does memory grow, are handles left open? (`make soak`). Writes docs/reliability.md.

    python benchmarks/many_scenes.py [--scenes 1000] [--case NAME]

Each case is a process of its own. Figures are taken after every scene; what a case takes at first (caches, pools of threads)
counts as its start, so growth is from a tenth of the scenes on. Kept in benchmarks/results/many_scenes.json. Exit code 3 where
something grew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402

import rsedge  # noqa: E402
from benchmarks import reliability  # noqa: E402
from rsedge.data.errors import RequestError  # noqa: E402
from rsedge.data.files import read_json, write_json  # noqa: E402
from rsedge.devices.profiles.cpu import detect_cpu  # noqa: E402
from tests.faults.material import material  # noqa: E402
from tests.runtimes import tiny_models as tiny  # noqa: E402

SIZES = (40, 130, 300, 512)
SETTLED = 0.1
"""Share of the scenes after which a case has what it keeps."""
MOST_GROWTH = 2 << 20
"""Bytes from then on that are no growth: an allocator gives back when it likes."""
Act = Callable[[int], None]


def scenes(folder: Path) -> list[Path]:
    """GeoTIFFs of some sizes, one of them without a whole tile."""
    contract = tiny.spec(32)
    return [
        tiny.write_scene(folder / f"{n}.tif", tiny.random_scene(contract, n, n + 20, n), tiny.NAMES, compress="deflate")
        for n in SIZES
    ]


def one_model(folder: Path) -> Act:
    """One bundle, loaded once, on a scene after the other."""
    bundle, given = rsedge.load(material().bundle, material().key, threads=1), scenes(folder)

    def act(number: int) -> None:
        bundle.predict_into(given[number % len(given)], folder / "maps", again=True)

    return act


def anew(folder: Path) -> Act:
    """The bundle is opened, its model loaded and both let go for every scene."""
    given = scenes(folder)

    def act(number: int) -> None:
        with rsedge.load(material().bundle, material().key, threads=1) as bundle:
            bundle.predict_into(given[number % 2], folder / "maps", again=True)

    return act


def failing(folder: Path) -> Act:
    """Every second scene is cut off in its middle."""
    bundle, given = rsedge.load(material().bundle, material().key, threads=1), scenes(folder)
    broken = folder / "broken.tif"
    broken.write_bytes(given[2].read_bytes()[: given[2].stat().st_size // 2])

    def act(number: int) -> None:
        if number % 2 == 0:
            bundle.predict_into(given[number % len(given)], folder / "maps", again=True)
            return
        try:
            bundle.predict_into(broken, folder / "maps", again=True)
        except RequestError:
            return
        raise AssertionError("half a scene was mapped")

    return act


CASES: dict[str, tuple[Callable[[Path], Act], float]] = {
    "one model loaded once": (one_model, 1.0),
    "every second scene fails": (failing, 1.0),
    "opened anew for every scene": (anew, 0.2),
}
"""By name: what is done, and the share of the scenes it is done with."""


def measured(name: str, count: int) -> dict[str, Any]:
    """Runs a case in this process."""
    with tempfile.TemporaryDirectory() as folder:
        act, process = CASES[name][0](Path(folder)), psutil.Process()
        rows, began = [], time.monotonic()
        for number in range(count):
            act(number)
            rows.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
        seconds, left = time.monotonic() - began, [p.name for p in Path(folder).rglob(".rsedge-*")]
    settled = np.array(rows[int(SETTLED * count) :])
    start, end = (np.median(part, axis=0).astype(int).tolist() for part in np.array_split(settled, 10)[::9])
    return {
        "scenes": count, "seconds": round(seconds, 1), "memory": [start[0], end[0]], "most": int(settled[:, 0].max()),
        "handles": [start[1], end[1]], "threads": [start[2], end[2]], "left": left,
        "cpu": detect_cpu().model, "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }  # fmt: skip


def grew(row: dict[str, Any]) -> bool:
    """Whether memory or handles were more in the last tenth than after the first, or something was left behind."""
    (memory, later), handles, threads = row["memory"], row["handles"], row["threads"]
    return later - memory > MOST_GROWTH or handles[1] > handles[0] or threads[1] > threads[0] or bool(row["left"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000, help="of the cases that take the most (default 1000)")
    parser.add_argument(
        "--case", choices=sorted(CASES), help="this one alone, in this process; prints its figures, keeps nothing"
    )
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measured(given.case, given.scenes)))
        return 0
    found = read_json(reliability.MANY_SCENES) if reliability.MANY_SCENES.exists() else {}
    for name, (_, share) in CASES.items():
        command = [sys.executable, __file__, "--case", name, "--scenes", str(max(20, round(share * given.scenes)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 3
        row = json.loads(done.stdout.splitlines()[-1])
        found[name] = {**row, "grew": grew(row)}
        print(f"{name}: {found[name]}", flush=True)
        write_json(reliability.MANY_SCENES, found)
    reliability.render()
    return 3 if any(row["grew"] for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
