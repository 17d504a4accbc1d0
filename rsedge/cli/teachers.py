"""``rsedge teachers``: what recipes and loaders can name, and one teacher in full."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rsedge.cli.band_lines import bands
from rsedge.cli.complete import zoo_teachers
from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.models.features import Features
    from rsedge.models.zoo import TeacherRow

WIDTH = 100
FEW = 3
"""Features that are alike and are all named."""


def teachers_command(
    name: Annotated[
        str | None, typer.Argument(autocompletion=zoo_teachers, help="A teacher; leave it out to list all.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Say what a checkpoint is and run it on fixed inputs; NAME may be left out."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="OUT.npz", help="With --check: hold it against outputs of the authors' code.")
    ] = None,
    write_reference: Annotated[
        Path | None, typer.Option(metavar="OUT.npz", help="With --check: write the fixed inputs and our outputs.")
    ] = None,
    result: Annotated[
        Path | None, typer.Option(metavar="RESULT.json", help="With --reference: write the outcome, to be sent back.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="With --result: who ran the authors' code, and which.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """List the teachers, or show one whole: bands, features to tap, checkpoint layout, what was tested, notes.

    With --check, say what a downloaded checkpoint is, what of it is used, and what its network gives. Nothing in it is run. Exit
    code 3: it gives something else than --reference.

    Examples:

        rsedge teachers satmae-rgb-vitl

        rsedge teachers --check pretrain-vit-large-e199.pth

        rsedge teachers satmae-rgb-vitl --check pretrain-vit-large-e199.pth --reference theirs.npz
    """
    from rsedge.cli.teacher_check import Wanted
    from rsedge.cli.teacher_check import check as check_teacher
    from rsedge.models import zoo
    from rsedge.models.tested import LETTERS

    if check is not None:
        check_teacher(name, check, Wanted(reference, write_reference, result, by), as_json)
        return
    if given := [
        option
        for option, value in (
            ("--reference", reference), ("--write-reference", write_reference), ("--result", result), ("--by", by),
        )
        if value
    ]:  # fmt: skip
        raise RequestError(f"{given[0]} goes with --check FILE; name the checkpoint")
    if name is not None:
        row = zoo.teacher_row(name)
        found = _features(row)
        if as_json:
            listed = None if found is None else [f.as_dict() for f in found]
            typer.echo(json.dumps(_as_dict(row) | {"features": listed}))
        else:
            typer.echo("\n".join(card(row, feature_lines(row, found))))
        return
    rows = zoo.zoo()
    if as_json:
        typer.echo(json.dumps({"teachers": [_as_dict(row) for row in rows], "loaders": zoo.LOADER_NAMES}))
        return
    _print_table(rows)
    typer.echo("`rsedge teachers NAME` shows one. own copy: give the authors' file with `checkpoint:`; code only and")
    typer.echo("described: no weights are public, `checkpoint:` takes your own in the authors' layout.")
    tested = ", ".join(f"{letter} {point}" for point, letter in LETTERS.items())
    typer.echo(textwrap.fill(f"tested: {tested} (docs/teachers.md).", WIDTH))
    typer.echo("Other libraries' networks, with the bands under `input:` (docs/outside.md):")
    for loader, names in zoo.LOADER_NAMES.items():
        typer.echo(textwrap.fill(f"{loader + ':':<14}{names}", WIDTH, subsequent_indent=" " * 14))


def _features(row: TeacherRow) -> Features | None:
    """What can be tapped of its network; None where torch, which builds it, is not installed."""
    if util.find_spec("torch") is None:
        return None
    from rsedge.models.teachers import row_features

    return row_features(row)


def feature_lines(row: TeacherRow, found: Features | None) -> list[str]:
    """Features as lines of text, neighbours that are alike in one."""
    if found is None:
        return ["features: shown where torch is installed"]
    if not found:
        return ["features: none (its parts are learned by their outputs)"]
    lines = ["features, for steps.distill.taps" + (f" ({', '.join(row.taps)} to begin with):" if row.taps else ":")]
    for words, alike in itertools.groupby(found, key=lambda f: f.words):
        names = [f.name for f in alike]
        shown = names if len(names) <= FEW else [names[0], names[1], "...", names[-1]]
        lines.append(f"  {', '.join(shown).replace(', ...,', ' ...')}: {words}")
    return lines


def _as_dict(row: TeacherRow) -> dict[str, Any]:
    from rsedge.models.tested import agreement, outcomes, tested

    return row.as_dict() | {"agrees_with": agreement(row, tested()), "tested": outcomes(row, tested())}


def millions(count: int) -> str:
    """``19.4 M``, ``2.42 G``, or the number itself under a thousand."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            value = count / size
            return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
    return str(count)


def _print_table(rows: list[TeacherRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    from rsedge.models.tested import LETTERS, outcomes, tested

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column in ("name", "family", "task", "params", "input", "licence", "weights", "tested"):
        justify: Literal["left", "right"] = "right" if column == "params" else "left"
        table.add_column(column, justify=justify, no_wrap=column in ("name", "tested"), overflow="fold")
    for row in rows:
        found = outcomes(row, tested())
        marks = "".join(letter if point in found else "-" for point, letter in LETTERS.items())
        table.add_row(
            row.name, row.family, row.task, millions(row.params), row.input_text, row.licence, row.status, marks
        )
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def card(row: TeacherRow, features: list[str]) -> list[str]:
    """One teacher as lines of text, among them those of its features."""
    from rsedge.models.tested import agreement, outcomes, tested

    layout = row.checkpoint
    lines = [
        f"{row.title} ({row.name}): {row.task}, family {row.family}, {row.params:,} parameters",
        f"licence: {row.licence}; weights: {row.status}; source: {row.source}",
    ]
    if row.classes:
        lines.append("classes: " + ", ".join(row.classes))
    lines += bands(row.input) if row.input else ["input: no bands"]
    if row.prepared:
        lines += [f"authors, {what}: {words}" for what, words in row.prepared.model_dump().items() if words]
    if row.unprepared:
        lines.append(f"authors, resize and output: not known: {row.unprepared}")
    if row.sampler:
        lines.append("sampler: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in row.sampler.model_dump().items()))
    lines += features
    for label, names in (
        ("in a folder", [f"{place} ({prefix or 'names as they are'})" for place, prefix in layout.files.items()]),
        ("under", layout.top), ("lies in", [repr(root) for root in layout.roots]), ("prefixes removed", layout.strip),
        ("left out", layout.ignored), ("may lack", layout.absent), ("zero where absent", layout.zero),
        ("settings read", [f"{entry} ({argument})" for entry, argument in layout.settings.items()]),
    ):  # fmt: skip
        if names:
            lines.append(f"checkpoint, {label}: {', '.join(names)}")
    lines += [f"checkpoint, renamed: {old} -> {new}" for old, new in layout.rename.items()]
    if row.head:
        lines.append(f"checkpoint, head: {row.head}, when there, gives a classifier")
    lines.append(f"agrees with {agreement(row, tested())}")
    found = outcomes(row, tested())
    if by := found.pop("confirmed", None):
        lines.append(f"confirmed with the published weights by {by}")
    lines += [f"tested, {point}: {outcome}" for point, outcome in found.items()]
    return lines + [f"note: {note}" for note in row.notes]
