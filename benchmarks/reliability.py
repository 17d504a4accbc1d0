"""How faults end (`make fuzz`): every kind of tests/faults for some minutes. Writes docs/reliability.md.

    python benchmarks/reliability.py [--minutes N] [--only KIND] [--render]

Every attempt has a seed; those that went wrong are named with theirs, so `--only KIND --seed N` tries one again. Counts are kept
in benchmarks/results/reliability.json. Exit code 3 where an answer was wrong, a process crashed or hung.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rsedge.data.files import atomic_path, read_json  # noqa: E402
from rsedge.devices.profiles.cpu import detect_cpu  # noqa: E402
from tests.faults.kinds import FINE, all_kinds  # noqa: E402
from tests.faults.trying import tried  # noqa: E402

STORE = ROOT / "benchmarks" / "results" / "reliability.json"
MANY_SCENES = ROOT / "benchmarks" / "results" / "many_scenes.json"
"""Figures of benchmarks/many_scenes.py (`make soak`)."""
DOCUMENT = ROOT / "docs" / "reliability.md"
GUIDED = ("json", "manifest", "recipe", "npz", "label map", "band name")
"""Parsers that benchmarks/guided.py feeds, where atheris is installed (`pip install atheris`)."""
OUTCOMES = ("refused", "harmless", "wrong", "crashed", "hung")
HEAD = """\
# What faults do

Written by `make fuzz`; do not edit. Each kind breaks something at random, over and over: bytes of a bundle, headers of a scene, an
archive, a key, a file that goes away. *refused*: our own error, with the file and what to do. *harmless*: the right answer all
the same. What must not be: a *wrong* answer, a *crashed* process or a traceback, a *hung* one. `make test` tries each kind briefly.
*led by coverage*: bytes for one parser, by atheris, where it is installed; those only show that nothing crashes or hangs.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together (default 10)")
    parser.add_argument("--only", action="append", metavar="KIND", choices=sorted(all_kinds()), help="only this kind")
    parser.add_argument("--seed", type=int, help="one attempt with this seed; nothing is written")
    parser.add_argument("--render", action="store_true", help="only write the document from the counts there are")
    given = parser.parse_args()
    if given.render:
        return render()
    names = given.only or sorted(all_kinds())
    if given.seed is not None:
        for name in names:
            print(name, *(result for _, result in tried(name, iter([given.seed]))))
        return 0
    parsers = [] if given.only or importlib.util.find_spec("atheris") is None else list(GUIDED)
    share = 60 * given.minutes / (len(names) + len(parsers))
    for name in names:
        _keep(name, _counted(name, share))
    for parser in parsers:
        _keep(f"led by coverage: {parser}", _guided(parser, share))
    return render()


def _counted(name: str, seconds: float) -> dict[str, Any]:
    """Counts of the outcomes of one kind, and the attempts that must not be."""
    counts: Counter[str] = Counter()
    bad = []
    for seed, result in tried(name, _until(seconds)):
        counts[result.outcome] += 1
        if result.outcome not in FINE:
            bad.append({"seed": seed, "outcome": result.outcome, "what": result.what, "note": result.note})
        if sys.stderr.isatty():
            print(f"\r{name}: {dict(counts)}", end="", file=sys.stderr, flush=True)
    print(f"{name}: {dict(counts)}", flush=True)
    return _row(counts, bad)


def _guided(parser: str, seconds: float) -> dict[str, Any]:
    """One parser under atheris, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "benchmarks" / "guided.py"), parser, "--folder", folder]
        done = subprocess.run([*command, "--seconds", str(max(1, round(seconds)))], capture_output=True, text=True)
        counts = read_json(Path(folder) / "counts.json") if (Path(folder) / "counts.json").exists() else {}
        bad = []
        if done.returncode:
            counts["crashed"] = 1
            content = next((p.read_bytes() for p in Path(folder).glob("*-*") if p.is_file()), b"")
            errors = [line for line in done.stderr.splitlines() if "Error" in line][-1:]
            bad = [{"seed": None, "outcome": "crashed", "what": repr(content[:200]), "note": "".join(errors)[:300]}]
    print(f"led by coverage: {parser}: {counts}", flush=True)
    return _row(counts, bad)


def _row(counts: Mapping[str, int], bad: Sequence[dict[str, Any]]) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    made = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
    }
    return {"counts": dict(counts), "bad": list(bad[:20]), **made, "cpu": detect_cpu().model}


def _until(seconds: float) -> Iterator[int]:
    """Seeds for so long, counted from the end of the first attempt, before which the process has to start."""
    yield 0
    end = time.monotonic() + seconds
    yield from itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1))


def _keep(name: str, found: dict[str, Any]) -> None:
    stored = {**(read_json(STORE) if STORE.exists() else {}), name: found}
    STORE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(STORE) as temporary:
        temporary.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def render() -> int:
    """Writes docs/reliability.md from the counts and figures there are; 3 where something went wrong."""
    stored, many = (read_json(path) if path.exists() else {} for path in (STORE, MANY_SCENES))
    with atomic_path(DOCUMENT) as temporary:
        temporary.write_text(document(stored) + in_a_row(many), encoding="utf-8")
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


def in_a_row(many: Mapping[str, Mapping[str, Any]]) -> str:
    """The part on many scenes in one process."""
    if not many:
        return ""
    lines = [
        "", "## Many scenes in a row", "",
        "Written by `make soak`. Memory and handles of one process: medians over the second tenth of the scenes and over the last.",
        "", f"Machine: {'; '.join(sorted({r['cpu'] for r in many.values()}))}. "
        f"Date: {'; '.join(sorted({r['date'] for r in many.values()}))}.", "",
        "| case | scenes | memory, MB | growth, MB | most, MB | handles | threads | temporary files left |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in many.items():
        (start, end), handles, threads = row["memory"], row["handles"], row["threads"]
        cells = [
            f"{row['scenes']:,}", f"{start / 1e6:.1f} to {end / 1e6:.1f}", f"{(end - start) / 1e6:+.2f}",
            f"{row['most'] / 1e6:.1f}", f"{handles[0]} to {handles[1]}", f"{threads[0]} to {threads[1]}", str(len(row["left"])),
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _line(name: str, counts: dict[str, int] | Counter[str]) -> str:
    cells = [str(sum(counts.values())), *(str(counts.get(o, 0)) for o in OUTCOMES)]
    return f"| {name} | " + " | ".join(cells) + " |"


def where(rows: Sequence[dict[str, Any]]) -> str:
    """Machines, dates and commits."""
    if not rows:
        return "Nothing has been tried yet."
    columns = ("; ".join(sorted({row[key] for row in rows})) for key in ("cpu", "date", "commit"))
    return "Machine: {}. Date: {}. Commit: {}.".format(*columns)


if __name__ == "__main__":
    sys.exit(main())
