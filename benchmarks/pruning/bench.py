"""What pruning brings (`make bench-prune`), into docs/pruning.md: speed that a cut realises, what is kept beside Torch-Pruning.

    python benchmarks/pruning/bench.py [--only NAME] [--part kinds] [--seeds 3] [--anew] [--render]

Rows are kept in benchmarks/results/pruning.json as they end, and those that are there are not measured again: an interrupted run
goes on; `--anew` measures them again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import kept
import page
import realised
import torch
from timing import THREADS

MEASURED = {"kinds": kept.by_kinds, "kept": kept.measured}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*realised.NETWORKS, *kept.CASES], help="these alone")
    parser.add_argument(
        "--part", action="append", choices=[*MEASURED], help="of cases with real weights; all otherwise"
    )
    parser.add_argument("--anew", action="store_true", help="also what is there already")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--render", action="store_true", help="only write the document from the rows there are")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    for name in [] if given.render else given.only or [*realised.NETWORKS, *kept.CASES]:
        if name in realised.NETWORKS:
            keep("realised", name, realised.measured, given.anew)
            continue
        for part, seed in itertools.product(given.part or MEASURED, range(given.seeds)):
            keep(part, f"{name}, seed {seed}", lambda _, n=name, s=seed, of=MEASURED[part]: of(n, s), given.anew)
    page.PAGE.write(page.lines(page.PAGE.stored()))
    return 0


def keep(part: str, name: str, measure: Any, anew: bool) -> None:
    """Measures what is not there yet."""
    if anew or name not in page.PAGE.stored()[part]:
        print(f"== {name}", flush=True)
        page.PAGE.keep(part, name, measure(name))


if __name__ == "__main__":
    sys.exit(main())
