"""What the ready recipes reach, on several seeds (`make recipes`). Writes docs/recipes.md and README's table.

Every recipe of recipes/ whose data are at hand runs on each seed; the others are listed with what is missing. Rows are kept in
benchmarks/results/recipes.json as they end, so an interrupted grid goes on; a row whose data are read otherwise now is run again.
`--only NAME` runs one recipe, `--render` writes the documents from the rows there are. Exit code 3 where a row did not pass or a
gate was not decided.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import grid

from rsedge.data.files import read_json
from rsedge.data.root import data_root

STORE = grid.RESULTS / "recipes.json"
MISSING = grid.RESULTS / "recipes_missing.json"
DOCUMENT = grid.ROOT / "docs" / "recipes.md"
README = grid.ROOT / "README.md"
RUNS = grid.ROOT / "runs" / "recipes"
SEEDS = 3
SHOWN = "cloud-mask"
"""The recipe of README's table."""

HEAD = """\
# What the ready recipes reach

Written by `make recipes`; do not edit. Every recipe whose data are at hand runs on {seeds} seeds, which draw the split, the views,
the student's first weights and the order of training. A gate is *passed* or *failed* where its whole 95 % interval (block
bootstrap, paired with the teacher on the same tiles) lies on one side of the limit, else *undecided*. Latencies are of this
machine unless they say **predicted**. Figures are the range over the seeds; behind a gate's value stands its interval.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only write the documents from the rows there are")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this recipe (more than once: these)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds (default 3)")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time, each held to its share of the cores")
    given = parser.parse_args()
    if given.render:
        render(grid.Grid(STORE))
        return 0
    rows = grid.Grid(STORE, given.seeds)
    wanted = [p for p in ready_recipes() if not given.only or p.stem in given.only]
    wanted = [p for p in wanted if _can_run(p)]
    missing = [(p, seed) for seed in range(given.seeds) for p in wanted if not is_current(p, seed, rows)]
    grid.side_by_side([[one] for one in missing], given.jobs, lambda one, cores: _run(*one, rows, cores))
    render(rows)
    failed = [r for r in rows.rows if not r.passed]
    print(f"{len(rows.rows) - len(failed)} of {len(rows.rows)} rows passed with every gate decided; {DOCUMENT}")
    return 3 if failed else 0


def ready_recipes() -> list[Path]:
    """The ready recipes, by name."""
    return sorted((grid.ROOT / "recipes").glob("*.yaml"))


def _can_run(recipe: Path) -> bool:
    lacking = lacks(recipe)
    _note_missing(recipe.stem, lacking)
    if lacking is not None:
        print(f"== {recipe.stem}: cannot run here: {lacking}", flush=True)
    return lacking is None


def _run(recipe: Path, seed: int, rows: grid.Grid, cores: grid.Cores) -> None:
    print(f"== {recipe.stem}, seed {seed}", flush=True)
    folder = RUNS / f"{recipe.stem}-{seed}"
    rows.add(grid.run(recipe, {"seed": str(seed)}, [f"seed={seed}"], folder, cores=cores))
    render(rows)
    shutil.rmtree(folder / "cache", ignore_errors=True)


def is_current(recipe: Path, seed: int, rows: grid.Grid) -> bool:
    """Whether there is a row, and its data are read as the code reads them now."""
    row = rows.find(recipe, {"seed": str(seed)})
    return row is not None and row.data_sha256 == data_sha256(recipe, seed)


def data_sha256(recipe: Path, seed: int) -> str | None:
    """Hash of the manifest of a recipe's data as they are read now; None where they cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        if _read_data(recipe, Path(folder), "--set", f"seed={seed}").returncode:
            return None
        return str(read_json(Path(folder) / "run/stages/data/record.json")["value"]["manifest_sha256"])


def lacks(recipe: Path) -> str | None:
    """Why a recipe cannot run on this machine (data, weights, a runtime); None where it can."""
    with tempfile.TemporaryDirectory() as folder:
        done = _read_data(recipe, Path(folder))
    return None if done.returncode == 0 else " ".join(str(json.loads(done.stdout)["error"]).split())


def _read_data(recipe: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs a recipe's data stage in ``folder``/run."""
    command = [sys.executable, "-m", "rsedge.cli", "run", str(recipe), "--until", "data", "--json"]
    command += ["--run-dir", str(folder / "run"), *more]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=grid.ROOT)


def missing() -> dict[str, str]:
    """Recipes that could not run, with the reason."""
    return dict(read_json(MISSING)) if MISSING.exists() else {}


def _note_missing(name: str, reason: str | None) -> None:
    found = missing()
    found.pop(name, None)
    if reason is not None:
        found[name] = reason.replace(str(data_root().resolve()), "$RSEDGE_DATA").replace(f"{grid.ROOT}/", "")
    grid.write(MISSING, json.dumps(found, indent=1, sort_keys=True) + "\n")


def render(rows: grid.Grid) -> None:
    """Writes docs/recipes.md and README's table."""
    current = {p.stem: grid.sha256_file(p) for p in ready_recipes()}
    now = [r for r in rows.rows if current.get(r.recipe) == r.recipe_sha256]
    grid.write(DOCUMENT, document(now, rows.planned or SEEDS))
    grid.write(README, grid.between(README.read_text(encoding="utf-8"), "results", readme_table(now)))


def document(rows: Sequence[grid.Row], seeds: int) -> str:
    """docs/recipes.md."""
    names = [p.stem for p in ready_recipes()]
    parts = [HEAD.format(seeds=seeds), _overview(names, rows, seeds), "", grid.where_and_when(rows)]
    for name in names:
        mine = sorted((r for r in rows if r.recipe == name), key=lambda r: int(r.labels["seed"]))
        if mine:
            parts += ["", f"## {name}", "", *_gates(mine), "", *_figures(mine)]
    return "\n".join(parts) + "\n"


def _overview(names: Sequence[str], rows: Sequence[grid.Row], seeds: int) -> str:
    lines = ["| recipe | seeds | verdicts | gates undecided | run time |", "|---|---|---|---|---|"]
    absent = missing()
    for name in names:
        mine = [r for r in rows if r.recipe == name]
        if not mine:
            why = f"cannot run here: {absent[name]}" if name in absent else "not run yet"
            lines.append(f"| `{name}` | | {why} | | |")
            continue
        words = [r.verdict or f"error: {r.error}" for r in mine]
        verdicts = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
        if earlier := sum(not r.judged_as_now for r in mine):
            verdicts += f" (*earlier*: {earlier})"
        undecided = sum(g.outcome == "undecided" for r in mine for g in r.gates)
        whole = [r.seconds for r in mine if r.timed]
        took = grid.clock(statistics.median(whole)) if whole else ""
        partial = "" if len(mine) >= seeds else f" (partial: {seeds} wanted)"
        lines.append(f"| [`{name}`](#{name}) | {len(mine)}{partial} | {verdicts} | {undecided} | {took} |")
    return "\n".join(lines)


def _gates(rows: Sequence[grid.Row]) -> list[str]:
    asked = list(dict.fromkeys(grid.heading(g) for r in rows for g in r.gates))
    heads = ["gate", *(f"seed {r.labels['seed']}" for r in rows)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for heading in asked:
        found = [next((g for g in r.gates if grid.heading(g) == heading), None) for r in rows]
        cells = ["" if g is None else f"{grid.figure(g)} {g.word}" for g in found]
        lines.append("| " + " | ".join([heading, *cells]) + " |")
    return lines


def _figures(rows: Sequence[grid.Row]) -> list[str]:
    lines = ["| | latency p50 | size | metrics |", "|---|---|---|---|"]
    artefacts: dict[str, list[grid.TargetRow]] = {}
    for row in rows:
        for one in (row.teacher, *row.baselines, *row.targets):
            if one is not None:
                artefacts.setdefault(one.name, []).append(one)
    for name, ones in artefacts.items():
        metrics = list(dict.fromkeys(m for one in ones for m in one.metrics if m != "n"))
        figures = "; ".join(f"{m} {span(o.metrics[m] for o in ones if m in o.metrics)}" for m in metrics)
        lines.append(f"| {name} | {latency(ones)} | {size(ones)} | {figures} |")
    return lines


def span(values: Iterable[float], form: str = ".3f") -> str:
    """The range of some values, or the one value that they have."""
    ordered = sorted(values)
    ends = [format(v, form) for v in (ordered[0], ordered[-1])]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def latency(ones: Sequence[grid.TargetRow]) -> str:
    """Measured p50 or the predicted interval, over the seeds (ms)."""
    measured = [o.p50_ms for o in ones if o.p50_ms is not None]
    if measured:
        return f"{span(measured, '.3g')} ms"
    ends = [v for o in ones if o.predicted_ms for v in o.predicted_ms]
    return f"**predicted** {min(ends):.2g} to {max(ends):.2g} ms" if ends else ""


def size(ones: Sequence[grid.TargetRow]) -> str:
    """Sizes over the seeds (MB)."""
    sizes = [o.size_bytes / 1e6 for o in ones if o.size_bytes]
    return f"{span(sizes, '.2f')} MB" if sizes else ""


def readme_table(rows: Sequence[grid.Row]) -> str:
    """README's table of one recipe, with the verdicts of all of them."""
    mine = [r for r in rows if r.recipe == SHOWN and r.targets]
    if not mine:
        return f"`recipes/{SHOWN}.yaml` has not been run by `make recipes` yet; [docs/recipes.md](docs/recipes.md) says what has."
    verdicts = [r.verdict for r in mine]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    where = sorted({f"{r.machine.cpu}, {r.machine.cores} cores" for r in mine if r.machine})
    where += [how] if (how := grid.held(mine)) else []
    seeds = f"{len(mine)} seed{'s' if len(mine) > 1 else ''}"
    lines = [
        f"`recipes/{SHOWN}.yaml` on {seeds} ({counts}; {'; '.join(where)}); all recipes: [docs/recipes.md](docs/recipes.md).",
        "",
        "| | latency p50 | Cohen's kappa | agreement | size |",
        "|---|---|---|---|---|",
    ]
    teacher = [r.teacher for r in mine if r.teacher]
    lines.append(
        _readme_row("teacher", teacher, [b for r in mine for b in r.baselines if b.name == "teacher-openvino-f32"])
    )
    for name in dict.fromkeys(t.name for r in mine for t in (*r.baselines, *r.targets)):
        if name != "teacher-openvino-f32":
            ones = [t for r in mine for t in (*r.baselines, *r.targets) if t.name == name]
            lines.append(_readme_row(name, ones, ones))
    return "\n".join(lines)


def _readme_row(name: str, ones: Sequence[grid.TargetRow], timed: Sequence[grid.TargetRow]) -> str:
    cells = [name, latency(timed)]
    for metric, form in (("kappa", ".3f"), ("agreement", ".3f")):
        values = [o.metrics[metric] for o in ones if metric in o.metrics]
        cells.append(span(values, form) if values else "")
    return "| " + " | ".join([*cells, size(ones)]) + " |"


if __name__ == "__main__":
    sys.exit(main())
