"""What other packages add to ours, loaded from their entry points."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from rsedge.data.errors import MissingCapability

MEND = "its author has to mend it, or remove it"


def entry_words(kind: str, point: importlib.metadata.EntryPoint) -> str:
    """An entry point in words: ``kind`` is what it adds."""
    return f"{kind} '{point.name}' of the package {point.dist.name if point.dist else point.value}"


def loaded(kind: str, point: importlib.metadata.EntryPoint) -> Any:
    """The object behind an entry point.

    Raises:
        MissingCapability: the package cannot be imported, whatever it raises.
    """
    try:
        return point.load()
    except Exception as error:  # another's code, which may raise anything
        raise MissingCapability(
            f"{entry_words(kind, point)} cannot be imported ({error}); install it again, or remove it"
        ) from error
