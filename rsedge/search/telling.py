"""What a search tells: its page, a line or a table for the terminal, the recipe of a chosen trial, a script for Slurm."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.recipe.reading import resolved_text
from rsedge.recipe.schema import Recipe
from rsedge.reports.search import SearchView, TrialView, figure_text, title_of
from rsedge.search.front import TrialRow, front_of, gaps, higher
from rsedge.search.space import label
from rsedge.search.storage import shown
from rsedge.search.study import Search

PAGE = "search.html"
COLUMNS = ("trial", "target", "gates")
STATES = ("done", "stopped", "failed", "running", "waiting")
EXPLAINED = (
    "Trials that no other beats in all objectives together, of those whose gates hold on selection (of all, where none's do). "
    "Accuracy is on selection, size is that of the files. Latency on this machine is measured in turns with the teacher; what was "
    "not measured says predicted. The test set was not looked at: run the recipe of the one you choose."
)


def gates_text(row: TrialRow) -> str:
    """Whether gates hold on selection."""
    if row.state != "done":
        return ""
    return "hold" if row.holds else f"short of {gaps(row.shortfalls)}"


def figure_of(row: TrialRow, objective: str) -> str:
    found = row.figures.get(objective)
    return figure_text(
        objective, None if found is None else found.value, found is not None and found.provenance == "predicted"
    )


def head(search: Search) -> list[str]:
    """Of the table of trials."""
    return [*COLUMNS, *map(title_of, search.objectives), *search.space.file.variables]


def cells(search: Search, row: TrialRow) -> list[str]:
    """A trial's line in it."""
    point = [_short(label(row.point[name])) if name in row.point else "" for name in search.space.file.variables]
    return [str(row.number), row.target, gates_text(row), *(figure_of(row, name) for name in search.objectives), *point]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counts(rows: Sequence[TrialRow]) -> dict[str, int]:
    """Trials by what became of them."""
    found = Counter[str](row.state for row in rows)
    return {state: found[state] for state in STATES}


def counts_text(rows: Sequence[TrialRow]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts(rows).items() if count) or "no trial yet"


def view_of(search: Search, running: bool) -> SearchView:
    """The search as its page shows it.

    Raises:
        RequestError: its storage cannot be read.
    """
    rows = search.rows()
    best = {row.number for row in front_of(rows, search.objectives)}
    size = search.space.size
    facts = [
        ("trials", counts_text(rows)), ("not beaten", str(len(best))),
        ("space", "not countable" if size is None else f"{size:,} points"),
        ("varied", ", ".join(search.space.variables)), ("of", search.space.where), ("target", ", ".join(search.space.targets)),
    ]  # fmt: skip
    return SearchView(
        search.space.recipe.name, facts, {name: higher(name) for name in search.objectives},
        [_trial(row, row.number in best) for row in rows if row.state != "waiting"], running,
    )  # fmt: skip


def _trial(row: TrialRow, best: bool) -> TrialView:
    return TrialView(
        row.number, row.state, best, gates_text(row), {name: found.value for name, found in row.figures.items()},
        tuple(name for name, found in row.figures.items() if found.provenance == "predicted"),
        {name: label(value) for name, value in row.point.items()}, row.words, row.seconds,
    )  # fmt: skip


def write_page(search: Search, running: bool) -> Path:
    """Writes the page into the folder of the search.

    Raises:
        RequestError: the storage cannot be read, or the page cannot be written. MissingCapability: jinja2 is not installed.
    """
    from rsedge.reports.html import write_search_html

    path = search.folder / PAGE
    write_search_html(view_of(search, running), path)
    return path


def record_of(search: Search) -> dict[str, Any]:
    """As ``--json`` prints it."""
    rows = search.rows()
    return {
        "recipe": search.space.recipe.name, "search_dir": str(search.folder), "storage": shown(search.url), "study": search.name,
        "objectives": {name: "higher" if higher(name) else "lower" for name in search.objectives},
        "trials": [row.model_dump(mode="json") | {"holds": row.holds} for row in rows],
        "front": [row.number for row in front_of(rows, search.objectives)], "counts": counts(rows),
    }  # fmt: skip


def chosen(search: Search, number: int) -> tuple[TrialRow, Recipe]:
    """A finished trial and its recipe, whose targets begin with the one that it was judged on.

    Raises:
        RequestError: there is no such trial, or it was not finished.
    """
    rows = {row.number: row for row in search.rows()}
    row = rows.get(number)
    if row is None or row.state != "done":
        best = ", ".join(str(one.number) for one in front_of(list(rows.values()), search.objectives)) or "none yet"
        why = (
            "there is no such trial" if row is None else f"it is {row.state}" + (f": {row.words}" if row.words else "")
        )
        raise RequestError(f"--choose {number}: {why}; those that no other beats: {best}")
    recipe = search.space.recipe_at(row.point)
    targets = (row.target, *(name for name in recipe.targets if name != row.target))
    return row, recipe.model_copy(update={"name": f"{recipe.name}-trial-{number}", "targets": targets})


def chosen_text(search: Search, row: TrialRow, recipe: Recipe) -> str:
    """The recipe's file."""
    figures = ", ".join(f"{title_of(name)} {figure_of(row, name)}" for name in search.objectives)
    about = f"# Trial {row.number} of rsedge search, for {row.target}. On selection: {figures}; gates there: {gates_text(row)}."
    return f"{about}\n{resolved_text(recipe)}"


def sbatch(arguments: Sequence[str], workers: int, folder: Path, storage: str | None) -> str:
    """A Slurm script whose array of jobs works at one search; a journal, since SQLite is not for shared disks."""
    place = storage or f"journal:{folder.absolute()}/search.log"
    command = shlex.join(
        ["rsedge", "search", *arguments, "--search-dir", str(folder.absolute()), "--storage", place, "--workers", "1"]
    )
    return f"""#!/bin/bash
# Printed by rsedge search --sbatch. Not run here: no Slurm is at hand where rsedge is tested. Look it over, then: sbatch search.sh
# {folder.absolute()} has to lie on a disk that all nodes share, with locks.
#SBATCH --job-name=rsedge-search
#SBATCH --array=0-{workers - 1}
#SBATCH --cpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
mkdir -p {shlex.quote(str(folder.absolute().parent))}
srun {command}
"""
