"""``rsedge schema``: JSON Schemas, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli.complete import schema_kinds


def schema(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="recipe|parts|mission|device|report", autocompletion=schema_kinds, help="What the schema is of."
        ),
    ] = "recipe",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it, a new file; else stdout.")
    ] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of recipes, missions or device profiles, for editors, or of report.json.

    On top of a recipe, the line "# yaml-language-server: $schema=recipe.schema.json" has editors complete and check its fields.

    Examples:

        rsedge schema --output recipe.schema.json

        rsedge schema mission
    """
    from rsedge.data.files import write_bytes
    from rsedge.recipe.json_schema import json_schema
    from rsedge.runtimes.inference.outputs import check_outputs

    check_outputs([output], replace=False)
    text = json.dumps(json_schema(kind), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    write_bytes(output, text.encode(), replace=False)
    typer.echo(f"wrote {output}", err=True)
