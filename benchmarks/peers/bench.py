"""rsedge beside the tools that it stands on, with the same teacher, data and time (`make bench-peers`). Writes docs/benchmarks.md.

    python benchmarks/peers/bench.py [--case NAME] [--seeds N] [--only CONTENDER] [--minutes M] [--render]

Every contender is made in a process of its own, so that its processor time is known and one that fails is a row with its message.
What is done is kept under runs/peers and in benchmarks/results/peers.json; a second start goes on.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contender import CONTENDERS, OURS, TEACHER
from here import stamp
from material import CASES, Case, open_material
from results import keep
from store import Attempt, attempt, keep_attempt, place

from rsedge.data.errors import RsedgeError

HERE = Path(__file__).resolve().parent
DEFAULT_CASES = ("quickstart", "local-climate-zones-half", "cloud-mask")


def main() -> int:
    given = arguments()
    if given.make:
        return make_one(CASES[given.make[0]], int(given.make[1]), given.make[2])
    for name in () if given.render else given.case or DEFAULT_CASES:
        for seed in given.seed or range(given.seeds):
            run(CASES[name], seed, given.only or list(CONTENDERS), given.minutes)
    import page

    page.write()
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case (more than once: these)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--seed", type=int, action="append", help="this seed alone (more than once: these)")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), help="only these contenders")
    parser.add_argument("--minutes", type=float, default=120.0, help="processor time that a contender may take")
    parser.add_argument("--render", action="store_true", help="only write the document from the rows there are")
    parser.add_argument("--make", nargs=3, metavar=("CASE", "SEED", "CONTENDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def run(case: Case, seed: int, names: Sequence[str], minutes: float) -> None:
    """Makes the contenders that are not made yet, then judges all that there are."""
    material = open_material(case, seed)
    for name in CONTENDERS:
        if name in {TEACHER, OURS, *names} and attempt(case, seed, name) is None:
            print(f"== {case.name}, seed {seed}: {name}", flush=True)
            keep_attempt(case, seed, name, tried(case, seed, name, minutes))
    from judging import judge

    attempts = {name: found for name in CONTENDERS if (found := attempt(case, seed, name)) is not None}
    judged = judge(material, {name: found.made for name, found in attempts.items() if found.made is not None})
    rows = {name: found.row() | judged["rows"].get(name, {}) for name, found in attempts.items()}
    about = {"case": case.name, "seed": seed, "recipe": case.recipe, "settings": list(case.settings)}
    keep("real", f"{case.name}-{seed}", about | judged | {"rows": rows, "made_on": stamp()})


def tried(case: Case, seed: int, name: str, minutes: float) -> Attempt:
    """Makes one contender in a process of its own, with a limit on its processor time."""
    folder, limit = place(case, seed, name), max(1, round(60 * minutes))
    again = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / "bench.py"), "--make", case.name, str(seed), name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=log, stderr=log, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = None if again else round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    if done.returncode == 0:
        made = Attempt.model_validate_json((folder / "made.json").read_text(encoding="utf-8"))
        return made.model_copy(update={"seconds": seconds})
    if done.returncode in (130, -2):
        raise KeyboardInterrupt
    return Attempt(seconds=seconds, error=_why(folder / "log.txt", done.returncode, minutes))


def _why(log: Path, code: int, minutes: float) -> str:
    if code in (-24, -9):
        return f"not done within {minutes:g} minutes of processor time"
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {code}"


def make_one(case: Case, seed: int, name: str) -> int:
    """The child's part: one contender, its record beside it."""
    folder = place(case, seed, name)
    try:
        made = CONTENDERS[name].make(open_material(case, seed), folder)
    except RsedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    (folder / "made.json").write_text(Attempt(made=made).model_dump_json(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
