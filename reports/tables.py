"""Tables of a report as texts, for whoever writes them: HTML, Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SPECIAL = re.compile(r"([\\`*_\[\]|#<>~])")
LIST = re.compile(r"^(?:[-+]|\d+[.)])(?=\s|$)")
"""What begins an entry of a list."""


@dataclass(frozen=True)
class Cell:
    """A text, smaller ones below it, whether it is an outcome, and the number of the colour that stands for it elsewhere."""

    text: str
    notes: tuple[str, ...] = ()
    badge: bool = False
    swatch: int | None = None


@dataclass(frozen=True)
class Column:
    """A heading; figures stand at the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first cell of a row names it."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


class Mark(NamedTuple):
    """How an outcome is marked: a kind that styles name, and a sign for who sees no colours."""

    kind: str
    sign: str


MARKS = {
    "passed": Mark("good", "✓"),
    "applied": Mark("good", "✓"),
    "failed": Mark("bad", "✗"),
    "not taken": Mark("bad", "✗"),
    "rejected": Mark("warn", "↩"),
    "undecided": Mark("warn", "?"),
    "predicted": Mark("hollow", "≈"),
    "measured": Mark("plain", "●"),
}


def mark(word: str) -> Mark:
    """The mark of an outcome, which may go on after a colon or a comma."""
    return MARKS.get(re.split("[:,]", word)[0], Mark("plain", "–"))


def plain(text: object) -> str:
    """A text in one line, with nothing in it that Markdown or HTML would read as more than text; addresses stay what they are."""
    line = SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
    return LIST.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def code(text: object) -> str:
    """A text as code of Markdown, in one line; outside of tables, whose cells a bar would end."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39))}`"
