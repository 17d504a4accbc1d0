"""How long, and for how much, a larger archive would take: predicted from the scenes that were mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsedge.data.errors import RequestError

LEAST, DRAWS = 10, 2000
Span = tuple[float, float, float]
"""Lower end of the 95 % interval, middle, upper end."""


@dataclass(frozen=True)
class Plan:
    """A prediction for ``scenes`` like those that were mapped, on machines like this one.

    Attributes:
        measured: scenes that it rests on. scene_s: seconds of a worker per scene.
        hours: of wall time on one machine with ``workers`` workers. cost: at a price per hour and machine, however many there are;
            None without a price.
    """

    scenes: int
    workers: int
    measured: int
    scene_s: Span
    hours: Span
    cost: Span | None = None

    @property
    def words(self) -> str:
        text = (
            f"{self.scenes:,} scenes like these: predicted {_span(self.hours)} hours on one machine like this with {self.workers} "
            f"workers; rests on {self.measured} scenes of {self.scene_s[1]:.3g} s"
        )
        return text if self.cost is None else f"{text}; predicted cost {_span(self.cost)}, on however many machines"


def _span(found: Span) -> str:
    low, middle, high = found
    return f"{middle:,.3g} (95 % {low:,.3g} to {high:,.3g})"


def plan(seconds: Sequence[float], workers: int, scenes: int, price: float | None = None) -> Plan:
    """From seconds per scene, measured while so many workers were at it; the interval of their mean by drawing scenes again.

    Raises:
        RequestError: fewer than :data:`LEAST` scenes were mapped.
    """
    if len(seconds) < LEAST:
        raise RequestError(
            f"--plan: {len(seconds)} scenes were mapped now, and a prediction rests on {LEAST} or more; name more scenes"
        )
    values = np.asarray(seconds, np.float64)
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    each = (float(low), float(values.mean()), float(high))
    hours = _times(each, scenes / workers / 3600)
    return Plan(scenes, workers, len(values), each, hours, None if price is None else _times(hours, price))


def _times(found: Span, factor: float) -> Span:
    low, middle, high = found
    return low * factor, middle * factor, high * factor
