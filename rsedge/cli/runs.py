"""``rsedge runs``: the run folders in a folder, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from rsedge.cli.common import print_json
from rsedge.cli.options import Json
from rsedge.cli.tables import add, show, table
from rsedge.data.errors import RequestError
from rsedge.data.printable import printable

if TYPE_CHECKING:
    from rsedge.reports.runs import RunRow


def runs(
    folder: Annotated[Path, typer.Argument(help="Holds run folders, or is one.")] = Path("runs"),
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only these: done, interrupted, running, damaged.")
    ] = None,
    verdict: Annotated[
        list[str] | None, typer.Option(metavar="VERDICT", help="Only these: passed, failed, undecided, 'no gates'.")
    ] = None,
    sort: Annotated[str, typer.Option(metavar="BY", help="date, name, latency, failed or size.")] = "date",
    as_json: Json = False,
) -> None:
    """List run folders: name, date, recipe, seed, verdict, gates that do not hold, the fastest measured target, size and state.

    A run that was interrupted, is running, or whose files are damaged or of another version is listed as that, with the reason.
    Predicted latencies are no measurement: the fastest target is the fastest that was measured.

    Examples:

        rsedge runs

        rsedge runs runs --state done --verdict passed --sort latency

        rsedge runs runs --state interrupted --json
    """
    from rsedge.recipe.places import recipe_hash
    from rsedge.reports.runs import ORDERS, State, chosen, list_runs

    _check("--sort", [sort], ORDERS)
    _check("--state", state or [], get_args(State))
    _check("--verdict", verdict or [], ("passed", "failed", "undecided", "no gates", "rejected"))
    rows = chosen(list_runs(folder, recipe_hash), state or (), verdict or (), sort)
    if as_json:
        print_json({"folder": str(folder), "runs": [{**asdict(row), "path": str(row.path)} for row in rows]})
    elif rows:
        _print(rows)
    else:
        typer.echo(f"{folder}: no such run folder in it", err=True)


def _check(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    from rsedge.data.document_check import nearest

    names = list(known)
    for one in given:
        if one not in names:
            raise RequestError(f"{option} {one}: choose {', '.join(names)}{nearest(one, names)}")


def _print(rows: list[RunRow]) -> None:
    from rsedge.reports.figures import DASH, milliseconds, size

    made = table(
        "folder", "name", "date", "recipe", "seed", "verdict", "gates failed", "fastest measured", "size", "state"
    )
    for row in rows:
        fastest = DASH if row.fastest is None else f"{row.fastest} {milliseconds(row.fastest_ms)}"
        cells = (
            str(row.path), row.name, (row.date or "")[:16].replace("T", " "), (row.recipe or "")[:8], row.seed, row.verdict,
            row.gates_failed, fastest, size(row.size_bytes), row.state if row.note is None else f"{row.state}: {row.note}",
        )  # fmt: skip
        add(made, *(printable(DASH if cell in (None, "") else str(cell)) for cell in cells))
    show(made)
