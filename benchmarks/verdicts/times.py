"""How long the two commands of a fresh machine take (`make times`): `make demo` and `make test`, one after the other.

Writes benchmarks/results/times.json and README's table; `--render` writes the table alone. Set-up is not counted: it is done first.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grid

from rsedge.data.files import read_json
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.runtimes.session import cpu_count

STORE = grid.RESULTS / "times.json"
README = grid.ROOT / "README.md"
NEEDS = "Python 3.11 to 3.13 or uv, make, a package registry, 10 GB of disk"
COMMANDS = {
    "demo": f"teacher to signed bundles and a report | {NEEDS}",
    "test": f"all tests but the long sweeps | {NEEDS}; those on real scenes look under RSEDGE_DATA (default ../shared/data) "
    "and are skipped without",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only write README's table from the stored times")
    parser.add_argument("--only", choices=tuple(COMMANDS), help="only this command")
    given = parser.parse_args()
    if not given.render:
        subprocess.run(["make", "setup"], cwd=grid.ROOT, check=True)
        for name in (n for n in COMMANDS if given.only in (None, n)):
            render()  # first: `make test` holds README against the stored times
            grid.write(STORE, json.dumps(stored() | {name: measured(name)}, indent=1) + "\n")
    render()
    return max((found["exit_code"] for found in stored().values()), default=0)


def render() -> None:
    """Writes README's table from the stored times."""
    grid.write(README, grid.between(README.read_text(encoding="utf-8"), "times", table()))


def stored() -> dict[str, dict[str, object]]:
    """The times that were taken, by command."""
    return dict(read_json(STORE)) if STORE.exists() else {}


def measured(name: str) -> dict[str, object]:
    """Runs one target of the Makefile."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(["make", name, f"RUN_DIR={Path(folder) / 'run'}"], cwd=grid.ROOT)
        seconds = round(time.perf_counter() - started)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"seconds": seconds, "exit_code": done.returncode, "date": today, "commit": grid.commit(),
            "machine": f"{detect_cpu().model}, {cpu_count()} cores"}  # fmt: skip


def table() -> str:
    """README's table of the two commands."""
    lines = ["| command | does | needs | takes, set up |", "|---|---|---|---|"]
    for name, about in COMMANDS.items():
        found = stored().get(name)
        took = "not measured yet (`make times`)"
        if found is not None:
            took = f"{grid.clock(float(str(found['seconds'])))} minutes ({found['machine']}, {found['date']})"
        lines.append(f"| `make {name}` | {about} | {took} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
