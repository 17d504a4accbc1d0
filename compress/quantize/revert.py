"""Leaving layers in float, few of them, until a quantized model is good enough.

Where each layer's damage alone is known (:mod:`rsedge.compress.quantize.sensitivity`), the worst go to float: one, two, four, until
the model passes, then fewer by halves. Elsewhere layers are taken in groups of neighbours. Each group is left in float alone and
the likeness that this gains on the selection set is its sensitivity; then groups are added, the most sensitive first, until the
model passes; at last the set is halved as long as a half of it does. Works on any runtime whose quantizer takes names
(:class:`rsedge.compress.quantize.search.Ground`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal

from pydantic import Field

from rsedge.compress.quantize.acceptance import Limit
from rsedge.compress.quantize.ptq import PtqSettings, Tiles
from rsedge.compress.quantize.search import Ground, M, Trial, attempt, rank_of
from rsedge.compress.quantize.sensitivity import neighbours
from rsedge.data.record import Record

GROUPS = 8


class Reversion(Record):
    """Every step, the sensitivities that ordered the layers, and what came out."""

    outcome: Literal["applied", "rejected"]
    reason: str
    layers: int = Field(description="that could have been left in float")
    sensitivity: dict[str, float] = Field(
        description="first layer of a group -> likeness gained with the group in float; empty where damage alone gave the order"
    )
    trials: tuple[Trial, ...]
    best: int | None
    seconds: float


@dataclass(frozen=True)
class Reverted(Generic[M]):
    """The best model (None where every trial failed) and the record."""

    model: M | None
    record: Reversion


@dataclass
class _Attempts(Generic[M]):
    """Trials within a budget; the best model so far is kept."""

    ground: Ground[M]
    calibration: Tiles
    base: PtqSettings
    limit: Limit
    most: int
    deadline: float
    on_trial: Callable[[int, int, Trial], None] | None
    trials: list[Trial]
    best: tuple[int, M] | None = None

    def left(self) -> bool:
        return len(self.trials) < self.most and (not self.trials or time.perf_counter() < self.deadline)

    def with_float(self, names: Sequence[str]) -> Trial:
        rung = self.base.model_copy(update={"float_names": (*self.base.float_names, *names)})
        made = attempt(self.ground, self.calibration, rung, self.limit)
        trial = made.trial
        self.trials.append(trial)
        if made.model is not None and (self.best is None or self._better(trial, self.trials[self.best[0]])):
            self.best = len(self.trials) - 1, made.model
        if self.on_trial is not None:
            self.on_trial(len(self.trials), self.most, trial)
        return trial

    def _better(self, trial: Trial, than: Trial) -> bool:
        """Of two that pass the one with fewer layers in float."""
        if trial.outcome == than.outcome == "passed":
            return len(trial.settings.float_names) < len(than.settings.float_names)
        return rank_of(trial, self.limit) > rank_of(than, self.limit)


def revert(
    ground: Ground[M],
    calibration: Tiles,
    base: Trial,
    limit: Limit,
    most: int,
    seconds: float,
    on_trial: Callable[[int, int, Trial], None] | None = None,
    worst_first: Sequence[tuple[str, ...]] = (),
) -> Reverted[M]:
    """Leaves layers of the network in float, beside the settings of ``base``, until it passes.

    Args:
        base: the best trial with every layer quantized.
        most: trials at most.
        seconds: no trial starts later.
        worst_first: layers by falling damage, where that is known.
    """
    started = time.perf_counter()
    tries = _Attempts(ground, calibration, base.settings, limit, most, started + seconds, on_trial, [])
    sensitivity = {} if worst_first else _by_groups(tries, base)
    if worst_first:
        _worst_to_float(tries, worst_first)
    trials = tuple(tries.trials)
    best = None if tries.best is None else tries.best[0]
    passed = best is not None and trials[best].outcome == "passed"
    record = Reversion(
        outcome="applied" if passed else "rejected",
        reason=_words(trials, best, len(ground.layers)),
        layers=len(ground.layers),
        sensitivity=sensitivity,
        trials=trials,
        best=best,
        seconds=time.perf_counter() - started,
    )
    return Reverted(None if tries.best is None else tries.best[1], record)


def _worst_to_float(tries: _Attempts[M], order: Sequence[tuple[str, ...]]) -> None:
    """Tries the first of ``order`` in float: one, two, four, ... until they pass, then between that and what did not."""
    missed, passed = 0, 0
    while tries.left() and (missed < len(order) if not passed else passed - missed > 1):
        count = (missed + passed) // 2 if passed else min(max(1, 2 * missed), len(order))
        if tries.with_float([name for group in order[:count] for name in group]).outcome == "passed":
            passed = count
        else:
            missed = count


def _by_groups(tries: _Attempts[M], base: Trial) -> dict[str, float]:
    groups = list(neighbours([n for n in tries.ground.layers if n not in base.settings.float_names], GROUPS))
    sensitivity = _sensitivities(tries, groups, base.score or 0.0)
    passing = _passing(tries, [g for g in groups if g[0] in sensitivity], sensitivity)
    while passing is not None and len(passing) > 1:
        passing = _passing_half(tries, passing)
    return sensitivity


def _sensitivities(tries: _Attempts[M], groups: Sequence[tuple[str, ...]], score: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for group in groups:
        if not tries.left():
            break
        trial = tries.with_float(group)
        if trial.found is not None:
            found[group[0]] = trial.found.score - score
    return found


def _passing(
    tries: _Attempts[M], groups: Sequence[tuple[str, ...]], sensitivity: dict[str, float]
) -> tuple[str, ...] | None:
    """The smallest group that passes alone, else the fewest of the most sensitive groups that pass together."""
    start = len(tries.base.float_names)
    alone = [t.settings.float_names[start:] for t in tries.trials if t.outcome == "passed"]
    if alone:
        return min(alone, key=len)
    together: tuple[str, ...] = ()
    for number, group in enumerate(sorted(groups, key=lambda g: -sensitivity[g[0]])):
        together += group
        if number and not tries.left():
            return None
        if number and tries.with_float(together).outcome == "passed":
            return together
    return None


def _passing_half(tries: _Attempts[M], names: tuple[str, ...]) -> tuple[str, ...] | None:
    middle = len(names) // 2
    for half in (names[:middle], names[middle:]):
        if not tries.left():
            return None
        if tries.with_float(half).outcome == "passed":
            return half
    return None


def _words(trials: Sequence[Trial], best: int | None, layers: int) -> str:
    if best is None:
        return f"no layer could be left in float ({len(trials)} trials)"
    trial = trials[best]
    count = len(trial.settings.float_names)
    if trial.outcome == "passed":
        return f"{count} of {layers} layers in float: {trial.reason}"
    return f"{len(trials)} trials with layers in float, none passed; the best left {count} of {layers}: {trial.reason}"
