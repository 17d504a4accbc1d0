"""What is checked of a model file: how its outputs differ from the f32 network's, and whether a compiler takes it."""

from __future__ import annotations

from collections.abc import Mapping

from rsedge.data.record import Record

F32_TOLERANCE = 1e-4
"""Largest difference of logits allowed at f32, relative to the largest absolute logit (at least 1)."""


class Difference(Record):
    """A candidate's logits against a reference's, over pixels valid in the reference (or whole vectors)."""

    max_abs: float
    mean_abs: float
    agreement: float
    valid_equal: bool
    logit_scale: float
    tiles: int
    pixels: int

    def within(self, tolerance: float = F32_TOLERANCE) -> bool:
        """Whether masks agree and no logit differs by more than ``tolerance * max(1, logit_scale)``."""
        return self.valid_equal and self.max_abs <= tolerance * max(1.0, self.logit_scale)


class CompileCheck(Record):
    """Whether a compiler takes the file; ``ok`` is None where there is none here, ``message`` says why or for what.

    Attributes:
        seconds: that it took.
        engine_bytes: size of what it made.
        sm, module, version: the GPU generation, the compiler's module and its version.
    """

    ok: bool | None
    message: str
    seconds: float | None = None
    engine_bytes: int | None = None
    sm: str | None = None
    module: str | None = None
    version: str | None = None


Check = Difference | CompileCheck


def agree(found: Mapping[str, Difference]) -> bool:
    """Whether something was compared, and all of it is within :data:`F32_TOLERANCE`."""
    return bool(found) and all(difference.within() for difference in found.values())
