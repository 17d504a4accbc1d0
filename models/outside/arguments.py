"""Arguments of other libraries' constructors (``teacher.arch``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rsedge.data.errors import RequestError

OUTSIDE = frozenset({"pretrained", "weights", "checkpoint", "cache", "url", "file", "dir", "folder", "hub"})
"""Words in the names of arguments that fetch weights, or read a file that the recipe does not name as one."""


def check_free(arch: Mapping[str, Any], fixed: Sequence[str]) -> None:
    """Refuses arguments that follow from the recipe, or by which a library fetches or reads something by itself.

    Raises:
        RequestError: names them.
    """
    if reaching := [name for name in arch if OUTSIDE & set(re.split(r"[^a-z]+", str(name).lower()))]:
        raise RequestError(
            f"teacher.arch: {', '.join(reaching)} would let the library fetch or read files by itself; weights come from "
            "teacher.checkpoint alone"
        )
    if given := [name for name in fixed if name in arch]:
        raise RequestError(
            f"teacher.arch: {', '.join(given)} follows from teacher.input and teacher.classes; leave it out of arch"
        )
