"""``rsedge students``: the catalogue that recipes choose students from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete

if TYPE_CHECKING:
    from rsedge.models.students import StudentEntry


def students_command(
    name: Annotated[
        str | None,
        typer.Argument(autocompletion=complete.catalogue_students, help="A student; leave it out to list all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """List the students: what each is for, its input, and whether it can be pruned; or show one with its options.

    Examples:

        rsedge students slim-unet
    """
    from rsedge.cli.tables import add, show, table
    from rsedge.models.students import CATALOGUE

    if name is not None:
        _show_one(name, as_json)
        return
    rows = [_row(entry) for entry in CATALOGUE.values()]
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
        "`student: {name: auto, latency_ms: X}` takes the largest that is fast enough on the recipe's first target.\n"
        "`rsedge students NAME` shows what a recipe may set of one."
    )


def _row(entry: StudentEntry) -> dict[str, Any]:
    return {
        "name": entry.name, "tasks": list(entry.tasks), "layouts": list(entry.layouts), "prunes": entry.prunes,
        "needs": list(entry.needs), "about": entry.about,
    }  # fmt: skip


def _show_one(name: str, as_json: bool) -> None:
    from rsedge.cli.tables import add, show, table
    from rsedge.models.students import student_entry
    from rsedge.models.students.options import student_options, student_text

    entry, options = student_entry(name), student_options(name)
    if as_json:
        typer.echo(json.dumps(_row(entry) | {"options": [option.as_dict() for option in options]}))
        return
    typer.echo("\n\n".join(part for part in (f"{entry.name}: {entry.about}", student_text(name)) if part) + "\n")
    shown = table("option", "takes", "default")
    for option in options:
        default = "must be given" if option.needed else "" if option.default is None else json.dumps(option.default)
        add(shown, option.name, option.takes, default)
    if options:
        show(shown)
    example = {o.name: "..." if o.needed else o.default for o in options if o.needed or o.default is not None}
    typer.echo("In a recipe: student: " + json.dumps({"name": name, **example}).replace('"', ""))
