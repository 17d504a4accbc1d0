"""Writes ``docs/teachers.md`` from the rows and from what the tests measured: ``python -m rsedge.models.doc OUT``.

Imports no torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rsedge.data.files import write_bytes
from rsedge.models.tested import POINTS, Results, agreement, outcomes, tested
from rsedge.models.zoo import LOADER_NAMES, Preparation, TeacherRow, zoo

SURVEY = """## Mistakes of the survey

Those about one model stand in its notes below. Beside them: its link for BigEarthNet leads to MMM-RS, another set of images and
texts; VALOR, cited with GAIR and listed among the data sets, is not of remote sensing; no weights of the "million" and
"billion" scale models are public.
"""
LOADERS = """## Teachers of other libraries

One loader each, `teacher.name` is `<loader>:<name>` ([how](outside.md)); tested with random weights.
"""
PREPARED = """## What the authors do before and behind

How an image gets the tile's size when their code evaluates, and what is taken of the network; the band contract holds the rest.
Last, the rows for which no source says it, and why.
"""
_HEAD = """# Teachers

Written by `make teachers` from `models/rows/*.yaml` and the results of the tests; do not edit. `rsedge teachers NAME` shows
one with its bands, checkpoint layout and notes.

Weights: *in a wheel* come with `pip`; *own copy*: give the authors' file with `checkpoint:`; *code only* and *described*: none
are public. An empty cell was not tried.

*Agrees with* tells four kinds apart, of which the columns authors, library and formulas have more: *its authors' code* (the same
weights gave the same outputs), *a library* that has such a network, *formulas* written out in a test, and *its description* (sizes
and names of a listing or an article: nobody's code was at hand, whatever its building blocks agree with). In brackets: what of
the network was compared, where it was not the whole at its published size.
"""


def markdown(rows: list[TeacherRow], results: Results) -> str:
    """The document."""
    lines = [_HEAD, *(f"- **{point}**: {meaning}" for point, meaning in POINTS.items()), ""]
    lines += _table(["name", "family", "task", "parameters", "input", "licence", "weights", "agrees with", *POINTS], [
        [f"`{r.name}`", r.family, r.task, f"{r.params:,}", r.input_text, r.licence, r.status, agreement(r, results),
         *(outcomes(r, results).get(point, "") for point in POINTS)]
        for r in rows
    ])  # fmt: skip
    lines += ["", LOADERS, *(f"- `{loader}:` {names}" for loader, names in LOADER_NAMES.items())]
    lines += ["", PREPARED, *_prepared(rows), "", SURVEY, "## Notes", ""]
    lines += [f"- {', '.join(f'`{n}`' for n in names)}: {note}" for note, names in _notes(rows).items()]
    return "\n".join(lines) + "\n"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]


def _prepared(rows: list[TeacherRow]) -> list[str]:
    """Each preparation with the rows that have it."""
    found: dict[Preparation, list[str]] = {}
    for row in rows:
        if row.prepared is not None:
            found.setdefault(row.prepared, []).append(f"`{row.name}`")
    why: dict[str, list[str]] = {}
    for row in rows:
        if row.unprepared:
            why.setdefault(row.unprepared, []).append(f"`{row.name}`")
    return [
        *(
            f"- {', '.join(names)}: {f'{one.resize}; ' if one.resize else ''}{one.output} ({one.source})"
            for one, names in found.items()
        ),
        *(f"- {', '.join(names)}: not known: {reason}" for reason, names in why.items()),
    ]


def _notes(rows: list[TeacherRow]) -> dict[str, list[str]]:
    """Each note with the rows that have it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            found.setdefault(note, []).append(row.name)
    return found


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), markdown(zoo(), tested()).encode())
