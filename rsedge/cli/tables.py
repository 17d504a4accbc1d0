"""Plain tables for the terminal; wide where the output goes to a file."""

from __future__ import annotations

import sys
from typing import Any


def table(*columns: str) -> Any:
    """An empty table with these columns."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def add(table: Any, *cells: str) -> None:
    """Adds a row of plain text: square brackets are not markup."""
    from rich.text import Text

    table.add_row(*map(Text, cells))


def show(table: Any) -> None:
    """Prints a table."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)
