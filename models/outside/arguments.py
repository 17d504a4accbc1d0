"""Arguments of other libraries' constructors (``teacher.arch``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsedge.data.errors import RequestError


def check_free(arch: Mapping[str, Any], settled: Sequence[str]) -> None:
    """Refuses arguments that follow from the recipe.

    Raises:
        RequestError: names them.
    """
    if given := [name for name in settled if name in arch]:
        raise RequestError(
            f"teacher.arch: {', '.join(given)} follows from teacher.input and teacher.classes; leave it out of arch"
        )
