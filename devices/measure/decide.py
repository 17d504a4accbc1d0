"""Latencies that decide: candidates timed side by side, with an interval; what lies inside it counts as equal.

One timing on a shared machine says little: beside one busy process the same pair of networks gave ratios of wall-clock time from
0.55 to 1.3 (two threads, low quantile of short turns), while the ratio of *processor time* stayed within 0.87 to 0.92. So
candidates take many short turns in one run, both clocks are read in every turn, and processor time decides wherever it can be read.
The ratio is that of low quantiles over turns; its interval is a bootstrap over turns, never narrower than :data:`FLOOR`, by which
two compilations of one graph differ. Where even that cannot tell, the caller goes by the predicted order, and the record says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.devices.measure.load import TOO_BUSY, TOO_STOLEN, Clock, Load, Ticks

Runner = Callable[[], Any]
Floats = npt.NDArray[np.float64]

TURN_SECONDS = 0.02
LEAST_TURNS = 12
LOW = 0.25
"""Quantile over turns: other work on the machine only ever adds to a turn."""
FLOOR = 0.03
"""Least half-width of a ratio's interval (share): what two compilations of the same graph differ by."""
TOO_WIDE = 0.2
"""A half-width above this share says nothing."""
_BOOTSTRAPS = 400


class Ratio(Record):
    """How long one candidate takes as a share of another's time, with a 95 % interval."""

    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2 / self.value

    def says(self, limit: float) -> bool | None:
        """Whether the ratio is at most ``limit``; None where the interval holds it."""
        return True if self.high <= limit else False if self.low > limit else None


@dataclass(frozen=True)
class Turns:
    """Milliseconds per run of one candidate, one figure a turn (T,): low quantile by the wall clock, mean processor time."""

    wall: Floats
    processor: Floats | None = None


@dataclass(frozen=True)
class Race:
    """Candidates timed in turns in one run; turn ``i`` of one stands beside turn ``i`` of every other."""

    turns: Mapping[str, Turns]
    load: Load = field(default_factory=Load)

    @property
    def clock(self) -> Clock:
        """The clock that decides."""
        return "processor time" if all(t.processor is not None for t in self.turns.values()) else "wall clock"

    @property
    def count(self) -> int:
        """Turns per candidate."""
        return min(len(t.wall) for t in self.turns.values())

    def ms(self, name: str) -> float:
        """Latency by the wall clock (ms), as on a quiet machine: what the quieter turns took."""
        return float(np.quantile(self.turns[name].wall, LOW))

    def ms_interval(self, name: str) -> tuple[float, float]:
        """A 95 % interval of :meth:`ms`."""
        wall = self.turns[name].wall
        picks = _picks(len(wall))
        low, high = np.quantile(np.quantile(wall[picks], LOW, axis=1), (0.025, 0.975))
        value = self.ms(name)
        return min(float(low), value * (1 - FLOOR)), max(float(high), value * (1 + FLOOR))

    def ratio(self, of: str, over: str) -> Ratio:
        """Time of one candidate over another's, by :attr:`clock`."""
        first, second = self._deciding(of), self._deciding(over)
        picks = _picks(len(first))
        value = float(np.quantile(first, LOW) / np.quantile(second, LOW))
        drawn = np.quantile(first[picks], LOW, axis=1) / np.quantile(second[picks], LOW, axis=1)
        low, high = (float(v) for v in np.quantile(drawn, (0.025, 0.975)))
        return Ratio(value=value, low=min(low, value * (1 - FLOOR)), high=max(high, value * (1 + FLOOR)))

    def used_ms(self, name: str) -> float:
        """What one run takes of the clock that decides (ms)."""
        return float(np.quantile(self._deciding(name), LOW))

    def too_noisy(self) -> str | None:
        """Why these turns decide nothing, in words; None where they may."""
        if self.load.steal is not None and self.load.steal > TOO_STOLEN:
            return f"too noisy to tell: {self.load.words()}"
        if self.clock == "wall clock" and self.load.others is not None and self.load.others > TOO_BUSY:
            return f"too noisy to tell by the wall clock: {self.load.words()}"
        names = list(self.turns)
        widest = max((self.ratio(n, names[0]).half_width for n in names[1:]), default=0.0)
        if widest > TOO_WIDE:
            return f"too noisy to tell: turns spread so far that a ratio is known to ±{widest:.0%} only"
        return None

    def _deciding(self, name: str) -> Floats:
        turns = self.turns[name]
        found = turns.processor if self.clock == "processor time" and turns.processor is not None else turns.wall
        return found[: self.count]


def race(
    runners: Mapping[str, Runner],
    *,
    seconds: float = 1.0,
    turn_seconds: float = TURN_SECONDS,
    warmup: int = 3,
    on_processor: bool = True,
) -> Race:
    """Times candidates in turns until each had ``seconds``, and at least :data:`LEAST_TURNS` turns.

    A turn is one run untimed (the caches hold another's weights), then as many as fill ``turn_seconds``. The order is
    reversed every other round.

    Args:
        on_processor: the work is done by this process on this machine's processors, so that their time is what a run costs; of
            the whole process: nothing else of it may work meanwhile. False where another device computes.

    Raises:
        RequestError: no candidates, or times that are not positive.
    """
    if not runners or not seconds > 0 or not turn_seconds > 0:
        raise RequestError("timing needs candidates, and seconds above 0")
    for run in runners.values():
        for _ in range(warmup):
            run()
    wall: dict[str, list[float]] = {name: [] for name in runners}
    processor: dict[str, list[float]] = {name: [] for name in runners}
    names, rounds = list(runners), 0
    before, start = Ticks.now(), time.perf_counter()
    while rounds < LEAST_TURNS or time.perf_counter() - start < seconds * len(names):
        for name in names if rounds % 2 == 0 else reversed(names):
            taken, used = _turn(runners[name], turn_seconds)
            wall[name].append(taken)
            processor[name].append(used)
        rounds += 1
    turns = {n: Turns(np.array(wall[n]), np.array(processor[n]) if on_processor else None) for n in names}
    return Race(turns, Ticks.now().since(before))


def _turn(run: Runner, seconds: float) -> tuple[float, float]:
    run()
    samples: list[float] = []
    used, start = time.process_time(), time.perf_counter()
    while not samples or time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        run()
        samples.append(time.perf_counter() - begun)
    processor = (time.process_time() - used) / len(samples)
    return float(np.quantile(samples, LOW)) * 1e3, processor * 1e3


def _picks(count: int) -> npt.NDArray[np.int64]:
    """The same draws of turns for all candidates: they were taken side by side."""
    return np.random.default_rng(0).integers(0, count, (_BOOTSTRAPS, count))


class Contender(Record):
    """What decides between candidates beside their time: bytes, the score (higher is better), and the predicted place or ms."""

    size: float
    score: float
    predicted: float


class Choice(Record):
    """Which candidate was taken and why; ``equal`` are those whose times could not be told from the fastest's."""

    name: str
    reason: str
    decided_by: Literal["measured", "predicted"]
    equal: tuple[str, ...]


def pick(
    contenders: Mapping[str, Contender], raced: Race | None, tolerance: float = 0.0, size_tolerance: float = 0.02
) -> Choice:
    """The fastest; of those that are equal to it the smallest; of those the best score; then the first.

    Args:
        raced: holds all contenders; None, or turns too noisy to tell: the predicted order stands in for the time.
        tolerance: share within which times are equal though the interval is narrower.
        size_tolerance: share within which sizes are equal.

    Raises:
        RequestError: no contenders.
    """
    if not contenders:
        raise RequestError("nothing to choose from")
    noise = None if raced is None else raced.too_noisy()
    if raced is None or noise is not None:
        best = min(c.predicted for c in contenders.values())
        equal = [n for n, c in contenders.items() if c.predicted <= best * (1 + tolerance)]
        why, by = (noise + ", so " if noise else "") + "by the predicted order", "predicted"
    else:
        fastest = min(contenders, key=lambda n: raced.ratio(n, next(iter(contenders))).value)
        equal = [n for n in contenders if n == fastest or raced.ratio(n, fastest).low <= 1 + tolerance]
        why, by = f"by {raced.clock} over {raced.count} turns", "measured"
    smallest = min(contenders[n].size for n in equal)
    near = [n for n in equal if contenders[n].size <= smallest * (1 + size_tolerance)]
    name = max(near, key=lambda n: contenders[n].score)
    count = len(contenders)
    words = "the only one" if count == 1 else f"fastest of {count} {why}"
    if len(equal) > 1:
        words = f"{len(equal)} of {count} equally fast {why}; of these "
        words += "the best score" if len(near) > 1 else "the smallest"
    return Choice(
        name=name, reason=words, decided_by="predicted" if by == "predicted" else "measured", equal=tuple(equal)
    )


def agreed(measured: Ratio | None, predicted: float, step: float = 0.05) -> float:
    """The ratio that plans go by: the prediction wherever the measurement does not contradict it, so that noise plans nothing;
    else the measured one in steps of ``step``."""
    if measured is None or measured.low * (1 - step) <= predicted <= measured.high * (1 + step):
        return predicted
    return max(step, round(measured.value / step) * step)
