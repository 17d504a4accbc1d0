"""What pruning brings (`make bench-prune`), into docs/pruning.md: speed that a cut realises, what is kept beside Torch-Pruning.

    python benchmarks/pruning/bench.py [--only NAME] [--seeds 3] [--anew] [--render]

Rows are kept in benchmarks/results/pruning.json as they end, and those that are there are not measured again: an interrupted run
goes on; `--anew` measures them again.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import kept
import page
import realised
import torch

from rsedge.data.files import read_json, write_json
from rsedge.devices.profiles.cpu import detect_cpu

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "benchmarks" / "results" / "pruning.json"
DOCUMENT = ROOT / "docs" / "pruning.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*realised.NETWORKS, *kept.CASES], help="these alone")
    parser.add_argument("--anew", action="store_true", help="also what is there already")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="only write the document from the rows there are")
    given = parser.parse_args()
    torch.set_num_threads(2)
    for name in [] if given.render else given.only or [*realised.NETWORKS, *kept.CASES]:
        if name in realised.NETWORKS:
            _keep("realised", name, realised.measured, given.anew)
            continue
        for seed in range(given.seeds):
            _keep("kept", f"{name}, seed {seed}", lambda _, n=name, s=seed: kept.measured(n, s), given.anew)
    DOCUMENT.write_text(page.put(DOCUMENT.read_text(encoding="utf-8"), stored()), encoding="utf-8")
    print(DOCUMENT)
    return 0


def stored() -> dict[str, dict[str, Any]]:
    return read_json(STORE) if STORE.exists() else {"realised": {}, "kept": {}}


def _keep(part: str, name: str, measure: Any, anew: bool) -> None:
    if name in stored()[part] and not anew:
        return
    print(f"== {name}", flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    made = {"date": today, "commit": commit.stdout.strip(), "cpu": detect_cpu().model}
    found = measure(name) | made
    rows = stored()
    rows[part][name] = found
    write_json(STORE, rows)


if __name__ == "__main__":
    sys.exit(main())
