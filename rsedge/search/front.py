"""Which trials no other beats: Pareto fronts, and who goes on at a rung of few steps. Pure: no files, no Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, JsonValue

from rsedge.data.metrics.table import METRICS
from rsedge.data.record import Record

State = Literal["waiting", "running", "done", "stopped", "failed"]
"""``stopped``: left before its end, because it cannot pay; ``failed``: an error, in words."""
Costs = Sequence[float]
"""One figure an objective, less is better."""


class Figure(Record):
    """An objective's value, and whether it was measured here (metrics: on selection) or predicted."""

    value: float
    provenance: Literal["measured", "predicted"]
    note: str = ""


class Rung(Record):
    """What a trial came to with few steps: likeness to the teacher on selection, and the predicted costs of its student."""

    steps: int
    score: float
    costs: tuple[float, ...] = ()


class TrialRow(Record):
    """One trial.

    Attributes:
        point: variable -> value.
        figures: objective -> value.
        shortfalls: gate -> how far it is from holding on selection; 0 or less where it holds.
        words: what became of it.
        folder: where its stages lie, in the folder of the search.
    """

    number: int
    state: State
    target: str
    point: dict[str, JsonValue]
    figures: dict[str, Figure] = Field(default_factory=dict)
    shortfalls: dict[str, float] = Field(default_factory=dict)
    rungs: tuple[Rung, ...] = ()
    words: str = ""
    seconds: float | None = None
    folder: str = ""

    @property
    def holds(self) -> bool:
        """Whether every gate that selection can tell of holds there."""
        return all(value <= 0 for value in self.shortfalls.values())


def higher(objective: str) -> bool:
    """Whether more of it is better."""
    return objective in METRICS and METRICS[objective].higher


def costs_of(row: TrialRow, objectives: Sequence[str]) -> tuple[float, ...]:
    """Its figures with less as the better; infinite where there is none."""
    return tuple(_cost(row.figures.get(name), higher(name)) for name in objectives)


def _cost(figure: Figure | None, more: bool) -> float:
    return math.inf if figure is None else -figure.value if more else figure.value


def beats(one: Costs, other: Costs) -> bool:
    """Whether it is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def ranks(costs: Sequence[Costs]) -> list[int]:
    """The front that each lies on: 0 where no other beats it, 1 where only those of front 0 do, and so on."""
    found: list[int | None] = [None] * len(costs)
    left, front = set(range(len(costs))), 0
    while left:
        best = {i for i in left if not any(beats(costs[j], costs[i]) for j in left)}
        for i in best:
            found[i] = front
        left, front = left - best, front + 1
    return [rank for rank in found if rank is not None]


def front_of(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TrialRow]:
    """The finished trials that no other beats, the least first objective first: of those whose gates hold on selection, of all
    where none's do."""
    done = [row for row in rows if row.state == "done"]
    held = [row for row in done if row.holds] or done
    costs = [costs_of(row, objectives) for row in held]
    best = [(cost, row) for cost, row, rank in zip(costs, held, ranks(costs), strict=True) if rank == 0]
    return [row for _, row in sorted(best, key=lambda pair: (pair[0], pair[1].number))]


def goes_on(mine: Rung, others: Sequence[Rung], keep: float) -> bool:
    """Whether a candidate is among the share ``keep`` of those that came to its rung so far, itself among them.

    Better is an earlier front of score and predicted costs together, so that a small student is not held against a large one's
    score; on one front a higher score.
    """
    seen = [mine, *others]
    places = ranks([(-rung.score, *rung.costs) for rung in seen])
    better = sum((rank, -rung.score) < (places[0], -mine.score) for rank, rung in zip(places, seen, strict=True))
    return better < max(1, math.ceil(keep * len(seen)))


def gaps(shortfalls: Mapping[str, float]) -> str:
    """Gates that do not hold on selection, in words; empty where all do."""
    return ", ".join(name for name, value in shortfalls.items() if value > 0)
