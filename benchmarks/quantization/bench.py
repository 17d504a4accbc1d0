"""What the steps of docs/quantization.md bring (`make bench-int8 RUNS="runs/quickstart ..."`), into that page.

    python benchmarks/quantization/bench.py [RUN ...] [--network NAME] [--weights [CASE ...]] [--render]

RUN is the folder of a finished run with INT8 on OpenVINO: its student, calibration and held-out tiles are taken. Networks have
random weights and say how fast what is, nothing else. CASE has real ones
(RSEDGE_DATA). Rows are kept in benchmarks/results/int8.json as they end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import networks
import page
import students
import weights

from rsedge.recipe.reading import load_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--network", action="append", choices=networks.NETWORKS, default=[], help="these, raced")
    parser.add_argument(
        "--weights", nargs="*", choices=weights.CASES, help="weights alone, of all networks or of these"
    )
    parser.add_argument("--render", action="store_true", help="only write the page from the rows there are")
    given = parser.parse_args()
    for run in [] if given.render else given.runs:
        recipe = load_recipe(str(run / "recipe.resolved.yaml"))
        page.PAGE.keep("students", f"{recipe.name}, seed {recipe.seed}", students.measured(run))
    for name in [] if given.render else given.network:
        page.PAGE.keep("networks", name, networks.measured(name))
    for name in [] if given.render or given.weights is None else given.weights or weights.CASES:
        page.PAGE.keep("weights", name, weights.measured(name))
    page.PAGE.write(page.lines(page.PAGE.stored()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
