"""Whether a change to a network costs it what the recipe asks of it: the score that choices go by is not what gates judge."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import nn

from rsedge.data.record import Record


class Standing(Record):
    """How a network stands to the recipe's gates on selection."""

    shortfall: float = Field(ge=0, description="how far the worst gate is from holding; 0 where all hold")
    missed: tuple[str, ...] = Field(default=(), description="the gates that do not hold")
    reason: str = Field(default="", description="what does not hold, in words")


TakeStanding = Callable[[nn.Module], Standing | None]


def lost(before: Standing | None, after: Standing | None) -> str | None:
    """Why a change must not stay, in words: a gate that held does not hold after it, or the worst one is further from holding. None
    where it may, or where nobody asked."""
    if before is None or after is None:
        return None
    if set(after.missed) <= set(before.missed) and after.shortfall <= before.shortfall:
        return None
    return f"loses on selection: {after.reason}"
