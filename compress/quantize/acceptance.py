"""When a quantized model is good enough: the recipe's gates hold on the selection set with a margin, and likeness to the teacher
has not fallen far. One rule for calibration, training under rounding and reversion to float, whatever the runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from rsedge.data.record import Record


class Acceptance(Record):
    """What one model did on the selection set, on its own executable."""

    score: float = Field(description="likeness to the teacher, higher is better")
    holds: bool = Field(default=True, description="whether every gate of the recipe holds, with its margin")
    missed: tuple[str, ...] = Field(default=(), description="the gates that do not hold")
    shortfall: float = Field(default=0.0, ge=0, description="how far the worst gate is from holding; 0 where all hold")
    reason: str = Field(default="", description="the gates' figures, in words")
    gates: dict[str, float] = Field(default_factory=dict, description="value by gate")


@dataclass(frozen=True)
class Limit:
    """What is asked for, from what the f32 network does itself.

    A gate that the f32 network misses cannot be asked of the quantized one: then likeness and the other gates decide which is
    delivered.
    """

    reference: Acceptance
    max_drop: float

    def drop(self, found: Acceptance) -> float:
        """How far likeness fell under the f32 network's."""
        return self.reference.score - found.score

    def passes(self, found: Acceptance) -> bool:
        """Whether a model is as good as can be asked."""
        holds = found.holds or (self.hopeless and set(found.missed) <= set(self.reference.missed))
        return math.isfinite(found.score) and self.drop(found) <= self.max_drop and holds

    @property
    def hopeless(self) -> bool:
        """Whether the f32 network itself misses a gate."""
        return not self.reference.holds

    def rank(self, found: Acceptance) -> tuple[bool, float, float]:
        """Larger is better: passing, then gates nearer to holding (where they can), then likeness."""
        return self.passes(found), 0.0 if self.hopeless else -found.shortfall, found.score

    def words(self, found: Acceptance) -> str:
        """Why it passed or not."""
        text = f"drop {self.drop(found):+.4f}, allowed {self.max_drop:.4f}"
        return f"{text}; {found.reason}" if found.reason else text
