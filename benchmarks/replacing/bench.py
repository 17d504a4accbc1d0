"""What `replace` brings, and what was left out of it (`make bench-replace`), into docs/replacing.md.

    python benchmarks/replacing/bench.py [RUN ...] [--only PART] [--network NAME] [--render]

RUN is the folder of a finished run whose recipe has a `replace` step, such as those beside this file: what it decided is taken.
Networks have random weights and say how fast what is, nothing else. Rows are kept in benchmarks/results/replacing.json as they end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import networks
import page

from rsedge.data.files import read_json
from rsedge.recipe.reading import load_recipe

PARTS = {
    "activations": (networks.activations, networks.ACTIVATIONS),
    "tokens": (networks.tokens, networks.TOKENS),
    "kernels": (networks.kernels, networks.KERNELS),
    "folds": (networks.folds, networks.FOLDS),
}
"""Parts of the page -> what measures a network, and of which."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="these parts; all when neither runs nor parts are given"
    )
    parser.add_argument("--network", action="append", choices=networks.NETWORKS, help="these alone")
    parser.add_argument("--render", action="store_true", help="only write the page from the rows there are")
    given = parser.parse_args()
    for run in [] if given.render else given.runs:
        recipe = load_recipe(str(run / "recipe.resolved.yaml"))
        value = read_json(run / "stages" / "replace" / "record.json")["value"]
        page.PAGE.keep("runs", f"{recipe.name}, seed {recipe.seed}", value["record"])
    for part in [] if given.render else given.only or ([] if given.runs else PARTS):
        measure, names = PARTS[part]
        for name in (n for n in names if not given.network or n in given.network):
            page.PAGE.keep(part, name, measure(name))
    page.PAGE.write(page.lines(page.PAGE.stored()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
