"""Texts from outside as a terminal may be given them: what moves its cursor, or turns text round, could hide what we say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls of terminals but tab and new line, separators of lines, and marks that change the direction of writing."""


def printable(text: str) -> str:
    """The text with escapes (``\\x1b``) where it holds such characters."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_values(value: Any) -> Any:
    """The same of all texts in nested records and lists, names of fields too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_values(name): printable_values(inner) for name, inner in value.items()}
    return [printable_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def commanding(value: Any, place: str = "") -> Iterator[str]:
    """Places in nested JSON whose texts hold such characters, or a new line."""
    if isinstance(value, str) and (_COMMANDS.search(value) or "\n" in value):
        yield place or "text"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, found in inner:
        yield from commanding(found, f"{place}.{name}" if place else str(name))
        yield from commanding(name, f"a name in {place}" if place else "a name")
