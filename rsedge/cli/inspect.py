"""``rsedge inspect``: what a file is; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import print_json
from rsedge.cli.options import Json, Key
from rsedge.data.metrics.verdict import NO_VERDICT
from rsedge.data.printable import printable_values


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Bundle, scene, recipe, mission, profile, checkpoint, ONNX, IR, .npz, structure.json, engine: told by its bytes.",
        ),
    ],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Say what a file is: its contract, classes, sizes, what it was made from, and what one would do with it next.

    Examples:

        rsedge inspect runs/quickstart/bundles/openvino-cpu-int8

        rsedge inspect scene.tif

        rsedge inspect checkpoint.pth
    """
    from rsedge.cli.kinds import GROUND_KINDS
    from rsedge.runtimes.inspecting import describe

    record = describe(file, key, GROUND_KINDS)
    if as_json:
        print_json(record)
        return
    if record["kind"] == "bundle" and record["verdict"] is None:
        record["verdict"] = NO_VERDICT
    for line in _lines(printable_values(record)):
        typer.echo(line)


def _lines(record: Any, indent: str = "") -> Iterator[str]:
    """Nested records as indented ``name: value`` lines."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{indent}{name}:"
            for item in value:
                yield f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in item.items() if v is not None)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{name}: {'-' if text is None or text == '' else text}"
