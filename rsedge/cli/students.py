"""``rsedge students``: the catalogue that recipes choose students from."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def students_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """List the students: what each is for, its input, and whether it can be pruned."""
    from rsedge.cli.tables import add, show, table
    from rsedge.models.students import CATALOGUE

    rows = [
        {
            "name": entry.name, "tasks": list(entry.tasks), "layouts": list(entry.layouts), "prunes": entry.prunes,
            "needs": list(entry.needs), "about": entry.about,
        }
        for entry in CATALOGUE.values()
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"students": rows}))
        return
    shown = table("name", "tasks", "input", "prunes", "about")
    for entry in CATALOGUE.values():
        add(
            shown, entry.name, ", ".join(entry.tasks), " ".join(entry.layouts), "yes" if entry.prunes else "no", entry.about
        )  # fmt: skip
    show(shown)
    typer.echo(
        "`student: {name: auto, latency_ms: X}` takes the largest that is fast enough on the recipe's first target."
    )
