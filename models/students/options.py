"""What a recipe may set of a student: read off its builder, which is imported for it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rsedge.models.students import student_builder, student_entry


@dataclass(frozen=True)
class StudentOption:
    """One field beside ``name`` in ``student:``.

    Attributes:
        takes: values, in words.
        default: what it is where a recipe does not say; None where the builder decides or ``needed``.
        needed: whether a recipe must give it.
    """

    name: str
    takes: str
    default: Any
    needed: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def student_options(name: str) -> tuple[StudentOption, ...]:
    """All options, in the builder's order; what comes of the teacher's contract is none.

    Raises:
        RequestError: unknown student.
    """
    entry = student_entry(name)
    if entry.copies:
        return tuple(
            StudentOption(needed, "arguments of the teacher that are smaller", None, True) for needed in entry.needs
        )
    builder = student_builder(entry)
    hints = get_type_hints(builder.__init__ if inspect.isclass(builder) else builder)
    found = []
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.name not in entry.arguments:
            default = entry.fixed.get(parameter.name, parameter.default)
            needed = default is inspect.Parameter.empty
            takes = _words(hints.get(parameter.name, str))
            found.append(StudentOption(parameter.name, takes, None if needed else _listed(default), needed))
    return tuple(found)


def student_text(name: str) -> str:
    """What the builder says of itself, without marks of reStructuredText; nothing of a copy, whose builder is its teacher's.

    Raises:
        RequestError: unknown student.
    """
    entry = student_entry(name)
    text = "" if entry.copies else inspect.getdoc(student_builder(entry)) or ""
    return text.partition("\n\nRaises:")[0].replace(":class:", "").replace("``", "`").replace("`~", "`")


def _listed(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _words(hint: Any) -> str:
    """A type in words: ``number``, ``list of numbers``, ``bilinear or shuffle``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(value) for value in inner)
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return f"list of {_words(inner[0])}s"
    names = [_words(one) for one in inner if one is not type(None)]
    if names:
        return " or ".join(dict.fromkeys(names))
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(hint, "text")
