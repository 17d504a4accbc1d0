"""Does `make demo` pass whatever the seed and the processor (`make demo-seeds`)? Writes docs/reproducibility.md.

Seeds times autocast (bf16 where this processor has it, off) times quantization hosts (any, vnni): a training is shared by the two
hosts in one run folder. A few runs more cap the instruction sets that torch and OpenVINO may use. Rows are kept in
benchmarks/results/demo_seeds.json as they end, so an interrupted grid goes on; `--render` writes the documents from the rows there
are. Exit code 3 where a row did not pass or a gate was not decided.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import busy
import grid
import torch

RECIPE = grid.ROOT / "recipes" / "quickstart.yaml"
STORE = grid.RESULTS / "demo_seeds.json"
DOCUMENT = grid.ROOT / "docs" / "reproducibility.md"
README = grid.ROOT / "README.md"
RUNS = grid.ROOT / "runs" / "demo-seeds"
SEEDS, CAPPED_SEEDS = 10, 2
CAPS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX-512 without VNNI": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
"""Surroundings that stand for other processors."""

HEAD = """\
# Whether the demo passes again

Written by `make demo-seeds`; do not edit. One row is one run of `recipes/quickstart.yaml` (`make demo`): its seed draws the split,
the cloud fields, the views, the student's first weights and the order of training. *autocast* is what training computes in, *hosts*
what the INT8 search may assume (`any`: also processors without VNNI). A row passes if the exit code is 0 and every gate is decided:
its whole 95 % interval lies on the side that passes. Behind a value stands its interval.
"""
CAP_WORDS = """\
Rows with a cap stand for other processors: `ATEN_CPU_CAPABILITY` holds torch's own kernels, `ONEDNN_MAX_CPU_ISA` those of oneDNN,
in torch and in OpenVINO's CPU plugin (its convolutions then report `avx2` kernels instead of `avx512`). OpenVINO's list of
capabilities, NumPy's kernels and rsedge's own look at `/proc/cpuinfo` heed neither. On a cap without VNNI only `any` is run: `vnni`
would be a wrong claim.
"""


@dataclass(frozen=True)
class Case:
    """One row to be: its labels, and the folder that it shares with rows of the same training."""

    seed: int
    autocast: str
    hosts: str
    cap: str = "none"

    @property
    def labels(self) -> dict[str, str]:
        return {"seed": str(self.seed), "autocast": self.autocast, "hosts": self.hosts, "cap": self.cap}

    @property
    def folder(self) -> Path:
        return RUNS / f"{self.seed}-{self.autocast}-{self.cap.replace(' ', '-')}"


def plan() -> tuple[Case, ...]:
    """All rows that this machine can run, those of one training side by side."""
    autocasts = ("bf16", "off") if has_bf16() else ("off",)
    # Seed by seed, so that a part of the grid says something of every kind of row.
    wide = [Case(s, a, h) for s in range(SEEDS) for a in autocasts for h in ("any", "vnni")]
    capped = [Case(s, "off", "any", cap) for cap in CAPS for s in range(CAPPED_SEEDS)]
    return (*wide[: 4 * len(autocasts)], *capped, *wide[4 * len(autocasts) :])


def has_bf16() -> bool:
    """Whether torch can compute in bf16 here without emulating it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only write the documents from the rows there are")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="only the first so many seeds now")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time, each held to its share of the cores")
    given = parser.parse_args()
    if given.render:
        render(grid.Grid(STORE))
        return 0
    cases = plan()
    rows = grid.Grid(STORE, len(cases))
    missing = [c for c in cases if c.seed < given.seeds and rows.find(RECIPE, c.labels) is None]
    groups = [[c for c in missing if c.folder == folder] for folder in dict.fromkeys(c.folder for c in missing)]

    def work(case: Case, cores: grid.Cores) -> None:
        rows.add(_run(case, cores))
        render(rows)
        if not any(rows.find(RECIPE, c.labels) is None for c in cases if c.folder == case.folder):
            shutil.rmtree(case.folder, ignore_errors=True)

    grid.side_by_side(groups, given.jobs, work)
    render(rows)
    failed = [r for r in rows.rows if not r.passed]
    print(f"{len(rows.rows) - len(failed)} of {len(rows.rows)} rows passed; {DOCUMENT}")
    return 3 if failed else 0


def _run(case: Case, cores: grid.Cores) -> grid.Row:
    print(f"== {case.labels}", flush=True)
    sets = [f"seed={case.seed}", f"steps.0.distill.autocast={case.autocast}", f"steps.2.quantize.hosts={case.hosts}"]
    return grid.run(RECIPE, case.labels, sets, case.folder, CAPS.get(case.cap), cores)


def render(rows: grid.Grid) -> None:
    """Writes docs/reproducibility.md and README's lines on the demo."""
    now = [r for r in rows.rows if r.recipe_sha256 == grid.sha256_file(RECIPE)]
    grid.write(DOCUMENT, document(now, rows.planned))
    grid.write(README, grid.between(README.read_text(encoding="utf-8"), "demo", readme_lines(now, rows.planned)))


def document(rows: Sequence[grid.Row], planned: int) -> str:
    """docs/reproducibility.md."""
    ordered = sorted(
        rows,
        key=lambda r: (
            r.labels["cap"] != "none",
            r.labels["cap"],
            int(r.labels["seed"]),
            r.labels["autocast"],
            r.labels["hosts"],
        ),
    )
    return (
        "\n".join(
            [
                HEAD,
                summary(rows, planned),
                "",
                grid.where_and_when(rows),
                "",
                CAP_WORDS,
                *table(ordered),
                *busy.section(),
            ]
        )
        + "\n"
    )


def summary(rows: Sequence[grid.Row], planned: int) -> str:
    """One paragraph on how many passed, what the teacher is worth, and how long it takes."""
    if not rows:
        return f"**Partial: none of {planned} rows has been run.**"
    part = "" if len(rows) >= planned else f"**Partial: {len(rows)} of {planned} rows.** "
    passed = sum(r.passed for r in rows)
    kappas = sorted({r.teacher.metrics["kappa"] for r in rows if r.teacher and "kappa" in r.teacher.metrics})
    teacher = f" The teacher's kappa is {kappas[0]:.3f} to {kappas[-1]:.3f}." if kappas else ""
    took = f" A whole run took {run_times(rows)}." if run_times(rows) else ""
    return f"{part}{passed} of {len(rows)} rows passed with every gate decided.{teacher}{took}"


def run_times(rows: Sequence[grid.Row]) -> str:
    """What whole runs took that had their machine to themselves, and which machine; empty where there is none."""
    timed = [r for r in rows if r.timed]
    if not timed:
        return ""
    ends = dict.fromkeys(grid.clock(end(r.seconds for r in timed)) for end in (min, max))
    machines = "; ".join(sorted({f"{r.machine.cpu}, {r.machine.cores} cores" for r in timed if r.machine}))
    return f"{' to '.join(ends)} minutes ({machines})"


def table(rows: Sequence[grid.Row]) -> list[str]:
    """One line a row, one column a gate."""
    names = list(dict.fromkeys(grid.heading(g) for r in rows for g in r.gates))
    heads = ["seed", "autocast", "hosts", "cap", *names, "outcome", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        found = {grid.heading(g): g for g in row.gates}
        cells = [_cell(found[key]) if key in found else "" for key in names]
        end = "passed" if row.passed else row.error or f"exit {row.exit_code}"
        end += "" if row.judged_as_now else " (*earlier*)"
        held = f" on {row.cores} core{'s' if row.cores != 1 else ''}" if row.cores else ""
        time = ("shared" if row.reused else f"{row.seconds:.0f}") + held
        lines.append("| " + " | ".join([*row.labels.values(), *cells, end, time]) + " |")
    return lines if rows else []


def _cell(gate: grid.Gate) -> str:
    text = grid.figure(gate)
    return text if gate.outcome == "passed" else f"{text} **{gate.outcome}**"


def readme_lines(rows: Sequence[grid.Row], planned: int) -> str:
    """What README says of the demo's run time and of how often it passes."""
    if not rows:
        return "How often it passes is not measured yet (`make demo-seeds`)."
    took = run_times(rows)
    alone = f"After set-up `make demo` took {took}, on a machine with nothing else to do.\n" if took else ""
    passed = sum(r.passed for r in rows)
    some = "" if len(rows) >= planned else f", of {planned} planned"
    return (
        f"{alone}"
        f"{passed} of {len(rows)} runs{some} over seeds, number formats and capped instruction sets passed, every gate decided\n"
        "([table](docs/reproducibility.md))."
    )


if __name__ == "__main__":
    sys.exit(main())
