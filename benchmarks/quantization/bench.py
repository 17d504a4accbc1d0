"""What the steps of docs/quantization.md bring (`make bench-int8 RUNS="runs/quickstart ..."`), into that page.

    python benchmarks/quantization/bench.py [RUN ...] [--network NAME] [--render]

RUN is the folder of a finished run with INT8 on OpenVINO: its student, calibration and held-out tiles are taken. Networks have
random weights and say how fast what is, nothing else. Rows are kept in benchmarks/results/int8.json as they end.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import networks
import page
import students

from rsedge.data.files import read_json, write_json
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.recipe.reading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "benchmarks" / "results" / "int8.json"
DOCUMENT = ROOT / "docs" / "quantization.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--network", action="append", choices=networks.NETWORKS, default=[], help="these, raced")
    parser.add_argument("--render", action="store_true", help="only write the page from the rows there are")
    given = parser.parse_args()
    for run in [] if given.render else given.runs:
        recipe = load_recipe(str(run / "recipe.resolved.yaml"))
        keep("students", f"{recipe.name}, seed {recipe.seed}", students.measured(run))
    for name in [] if given.render else given.network:
        keep("networks", name, networks.measured(name))
    DOCUMENT.write_text(page.put(DOCUMENT.read_text(encoding="utf-8"), stored()), encoding="utf-8")
    print(DOCUMENT)
    return 0


def stored() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_json(STORE) if STORE.exists() else {"students": {}, "networks": {}}
    return found


def keep(part: str, name: str, row: dict[str, Any]) -> None:
    print(f"{name}: {row}", flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    rows = stored()
    rows[part][name] = row | {"date": today, "commit": commit.stdout.strip(), "cpu": detect_cpu().model}
    write_json(STORE, rows)


if __name__ == "__main__":
    sys.exit(main())
