"""What became of each run folder in a folder of them: done, interrupted, running or damaged, with the run's main figures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from rsedge.data.documents import read_document
from rsedge.data.errors import RequestError
from rsedge.data.files import lock_owner, sha256_of
from rsedge.data.json_text import read_json
from rsedge.data.moments import moment
from rsedge.data.run_names import RECIPE, REPORT, STAGES
from rsedge.reports.schema import Report, TargetRecord, load_report

RecipeHash = Callable[[Mapping[str, Any]], str]
"""A resolved recipe -> the hash that its bundles carry."""
State = Literal["done", "interrupted", "running", "damaged"]
MARKS = (RECIPE, REPORT, STAGES)
"""A folder that holds one of them is a run's; and so is one in which a run has just begun."""


@dataclass(frozen=True)
class RunRow:
    """One run folder.

    Attributes:
        date: ISO 8601, UTC: of the report, else when the run began.
        recipe: SHA-256 of the resolved recipe without its paths, the one that its bundles carry.
        gates_failed: gates that do not hold; None where none were judged by a report of this recipe.
        fastest: the fastest target whose latency was measured, and its median (ms).
        size_bytes: of all files in the folder.
        note: why it is not done, or what is wrong with it.
    """

    path: Path
    state: State
    name: str | None = None
    date: str | None = None
    recipe: str | None = None
    seed: int | None = None
    verdict: str | None = None
    gates_failed: int | None = None
    fastest: str | None = None
    fastest_ms: float | None = None
    size_bytes: int = 0
    note: str | None = None


def list_runs(folder: Path, recipe_hash: RecipeHash) -> list[RunRow]:
    """Rows of the run folders in ``folder``, or of itself where it is one; other folders are left out.

    Raises:
        RequestError: there is no such folder.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such folder; give the one that holds run folders, e.g. runs")
    if _is_run(folder):
        return [run_row(folder, recipe_hash)]
    return [run_row(path, recipe_hash) for path in sorted(folder.iterdir()) if path.is_dir() and _is_run(path)]


def _is_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in MARKS) or lock_owner(folder) is not None


def run_row(folder: Path, recipe_hash: RecipeHash, *, sized: bool = True) -> RunRow:
    """What is known of one run folder; whatever is wrong with it is in the row. Takes no lock and changes nothing. ``sized``: with
    the bytes of its files, for which each is looked at."""
    own: dict[str, Any] = {"size_bytes": _size(folder) if sized else 0, "date": _began(folder)}
    if (process := lock_owner(folder)) is not None:
        with contextlib.suppress(RequestError):  # being written just now
            own |= _of_recipe(_recipe(folder), recipe_hash)
        return RunRow(folder, "running", note=f"process {process}; {_last_stage(folder)}", **own)
    try:
        recipe = _recipe(folder)
        report = load_report(folder / REPORT) if (folder / REPORT).exists() else None
        gone = None if report is None else _differs(folder, report, recipe, recipe_hash)
    except RequestError as error:
        return RunRow(folder, "damaged", note=str(error).removeprefix(f"{folder}/"), **own)
    own |= _of_recipe(recipe, recipe_hash)
    if report is None or gone is not None:
        return RunRow(folder, "interrupted", note=gone or _last_stage(folder), **own)
    return RunRow(folder, "done", **(own | _figures(report)))


def _of_recipe(recipe: Mapping[str, Any], recipe_hash: RecipeHash) -> dict[str, Any]:
    return {"name": recipe.get("name"), "recipe": recipe_hash(recipe) if recipe else None, "seed": recipe.get("seed")}


def _figures(report: Report) -> dict[str, Any]:
    fastest = min((t for t in report.targets if t.latency_ms is not None), key=_median, default=None)
    gates = report.judged.gates
    return {
        "name": report.name,
        "date": report.created,
        "verdict": report.judged.word,
        "gates_failed": len([g for g in gates if not g.passed]),
        "fastest": None if fastest is None else fastest.name,
        "fastest_ms": None if fastest is None else _median(fastest),
    }


def _median(target: TargetRecord) -> float:
    assert target.latency_ms is not None
    return target.latency_ms.p50


def _recipe(folder: Path) -> Mapping[str, Any]:
    """The resolved recipe; nothing where a run of an older version left none beside its report.

    Raises:
        RequestError: it cannot be read.
    """
    path = folder / RECIPE
    return read_document(path, "recipe").value if path.exists() else {}


def _differs(folder: Path, report: Report, recipe: Mapping[str, Any], recipe_hash: RecipeHash) -> str | None:
    """Why the report is not of the recipe that lies beside it; None where it is.

    Raises:
        RequestError: a bundle of the report is gone or cannot be read.
    """
    # Bundles of earlier versions carry the hash of the recipe with its paths.
    wanted = {recipe_hash(recipe), sha256_of(recipe)} if recipe else None
    for target in report.targets:
        if target.bundle is None:
            continue
        manifest = read_json(folder / target.bundle / "manifest.json")
        made_by = manifest.get("recipe_sha256") if isinstance(manifest, dict) else None
        if wanted is not None and made_by is not None and made_by not in wanted:
            return f"its report is of another recipe; {_last_stage(folder)}"
    return None


def _last_stage(folder: Path) -> str:
    """The stage that ended last, in words."""
    done = [(_changed(path), path.parent.name) for path in folder.glob(f"{STAGES}/*/record.json")]
    return f"last finished stage: {max(done)[1]}" if done else "no stage is finished"


def _began(folder: Path) -> str | None:
    when = max((_changed(folder / mark) for mark in (RECIPE, STAGES)), default=0.0)
    return datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="seconds") if when else None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes of all files; what goes away meanwhile counts nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(where) / name).lstat().st_size
    return total


ORDERS: dict[str, Any] = {
    "date": lambda row: (row.date is None, _backwards(row.date)),
    "name": lambda row: (row.name is None, row.name or ""),
    "latency": lambda row: (row.fastest_ms is None, row.fastest_ms or 0.0),
    "failed": lambda row: (row.gates_failed is None, -(row.gates_failed or 0)),
    "size": lambda row: -row.size_bytes,
}
"""By what rows can be sorted: newest, first in the alphabet, fastest, most failed gates, largest first; what is not known last."""


def _backwards(date: str | None) -> float:
    return 0.0 if date is None else -moment(date).timestamp()


def chosen(
    rows: Iterable[RunRow], states: Iterable[str] = (), verdicts: Iterable[str] = (), order: str = "date"
) -> list[RunRow]:
    """Rows of these states and verdicts (all where none is named), sorted by one of :data:`ORDERS`.

    A verdict is named by how it begins: ``undecided`` takes those that lean to either side.
    """
    states, verdicts = tuple(states), tuple(verdicts)
    kept = [row for row in rows if not states or row.state in states]
    kept = [row for row in kept if not verdicts or (row.verdict or "").startswith(verdicts)]
    return sorted(sorted(kept, key=lambda row: str(row.path)), key=ORDERS[order])
