"""How faults end (`make fuzz`): every kind of tests/faults for some minutes. Writes docs/reliability.md.

    python benchmarks/reliability.py [--minutes N] [--only KIND] [--render]

Every attempt has a seed; those that went wrong are named with theirs, so `--only KIND --seed N` tries one again. Counts are kept
in benchmarks/results/reliability.json. Exit code 3 where an answer was wrong, a process crashed or hung.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rsedge.data.files import atomic_path, read_json  # noqa: E402
from rsedge.devices.cpu import detect_cpu  # noqa: E402
from tests.faults.kinds import FINE, all_kinds  # noqa: E402
from tests.faults.trying import tried  # noqa: E402

STORE = ROOT / "benchmarks" / "results" / "reliability.json"
DOCUMENT = ROOT / "docs" / "reliability.md"
OUTCOMES = ("refused", "harmless", "wrong", "crashed", "hung")
HEAD = """\
# What faults do

Written by `make fuzz`; do not edit. Each kind breaks something at random, over and over: bytes of a bundle, headers of a scene, an
archive, a key, a file that goes away. *refused*: our own error, with the file and what to do. *harmless*: the right answer all
the same. What must not be: a *wrong* answer, a *crashed* process or a traceback, a *hung* one. `make test` tries each kind briefly.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together (default 10)")
    parser.add_argument("--only", action="append", metavar="KIND", choices=sorted(all_kinds()), help="only this kind")
    parser.add_argument("--seed", type=int, help="one attempt with this seed; nothing is written")
    parser.add_argument("--render", action="store_true", help="only write the document from the counts there are")
    given = parser.parse_args()
    if given.render:
        return _render()
    names = given.only or sorted(all_kinds())
    if given.seed is not None:
        for name in names:
            print(name, *(result for _, result in tried(name, iter([given.seed]))))
        return 0
    for name in names:
        _keep(name, _counted(name, 60 * given.minutes / len(names)))
    return _render()


def _counted(name: str, seconds: float) -> dict[str, Any]:
    """Counts of the outcomes of one kind, and the attempts that must not be."""
    counts: Counter[str] = Counter()
    bad = []
    for seed, result in tried(name, _until(time.monotonic() + seconds)):
        counts[result.outcome] += 1
        if result.outcome not in FINE:
            bad.append({"seed": seed, "outcome": result.outcome, "what": result.what, "note": result.note})
        if sys.stderr.isatty():
            print(f"\r{name}: {dict(counts)}", end="", file=sys.stderr, flush=True)
    print(f"{name}: {dict(counts)}", flush=True)
    return {"counts": dict(counts), "bad": bad[:20], "date": _today(), "commit": _commit(), "cpu": detect_cpu().model}


def _until(end: float) -> Iterator[int]:
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def _keep(name: str, found: dict[str, Any]) -> None:
    stored = {**(read_json(STORE) if STORE.exists() else {}), name: found}
    STORE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(STORE) as temporary:
        temporary.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _render() -> int:
    stored = read_json(STORE) if STORE.exists() else {}
    with atomic_path(DOCUMENT) as temporary:
        temporary.write_text(document(stored), encoding="utf-8")
    print(f"{DOCUMENT}")
    return 3 if any(row["bad"] for row in stored.values()) else 0


def document(stored: dict[str, Any]) -> str:
    """docs/reliability.md from the counts by kind."""
    lines = ["| kind of fault | tried | " + " | ".join(OUTCOMES) + " |", "|---|" + "---|" * (1 + len(OUTCOMES))]
    total: Counter[str] = Counter()
    for name, row in sorted(stored.items()):
        total.update(row["counts"])
        lines.append(_line(name, row["counts"]))
    lines.append(_line("**all**", total))
    bad = [
        f"- {name}, seed {b['seed']}: {b['outcome']}: {b['what']} ({b['note']})"
        for name, row in sorted(stored.items())
        for b in row["bad"]
    ]
    wrong = ["", "What went wrong:", "", *bad] if bad else []
    return "\n".join([HEAD, where(list(stored.values())), "", *lines, *wrong]) + "\n"


def _line(name: str, counts: dict[str, int] | Counter[str]) -> str:
    cells = [str(sum(counts.values())), *(str(counts.get(o, 0)) for o in OUTCOMES)]
    return f"| {name} | " + " | ".join(cells) + " |"


def where(rows: Sequence[dict[str, Any]]) -> str:
    """Machines, dates and commits."""
    if not rows:
        return "Nothing has been tried yet."
    told = ("; ".join(sorted({row[key] for row in rows})) for key in ("cpu", "date", "commit"))
    return "Machine: {}. Date: {}. Commit: {}.".format(*told)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
