"""Moments as records keep them: text by RFC 3339, as JSON Schema's ``date-time`` has it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

_FORM = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)


def moment(text: str) -> datetime:
    """The moment that a text names, with its offset from UTC.

    Raises:
        ValueError: no date and time with an offset, or one that no calendar has.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no date and time by RFC 3339, e.g. 2026-11-30T12:00:00+00:00")
    day, clock, offset = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise ValueError(f"{text!r} is no date and time that there is ({error})") from error


def _checked(text: str) -> str:
    moment(text)
    return text


def _checked_or_empty(text: str) -> str:
    return _checked(text) if text else text


DateTime = Annotated[str, AfterValidator(_checked), Field(json_schema_extra={"format": "date-time"})]
"""A moment, kept as it is written."""
MaybeDateTime = Annotated[str, AfterValidator(_checked_or_empty)]
"""The same, or empty where it is not known."""
