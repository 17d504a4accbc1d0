"""How wide each group stays and which blocks go, so that a network takes at most so many milliseconds and loses least.

A multiple-choice knapsack: of every group one width, of every block whether it stays. A layer between two groups takes time by
the product of their widths, so what one group saves depends on the others. For a price of a millisecond (a Lagrange multiplier)
each choice is made in turn, the others as they are, until none changes; the price is found by bisection, and what is then left
of the budget is given back where it is worth most. On choices that do not depend on each other the gap to the optimum that integer
programming finds is within one width of one group (a test holds it against ``scipy.optimize.milp``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_ROUNDS = 20
_BISECTIONS = 40


@dataclass(frozen=True)
class Widths:
    """What may be left of a group: ``kept`` falls from its present width, ``damage`` rises from 0."""

    kept: Counts
    damage: Floats


@dataclass(frozen=True)
class Block:
    """A block that may go whole, with the groups that lie in it alone."""

    damage: float
    inside: frozenset[str] = frozenset()


class Times(Protocol):
    """Milliseconds of a network (:class:`.layer_times.LatencyTable`)."""

    def total(self, kept: Mapping[str, int], removed: Iterable[str] = ()) -> float: ...

    def of_group(self, group: str, options: Counts, kept: Mapping[str, int], removed: Iterable[str] = ()) -> Floats: ...

    def of_block(self, block: str, kept: Mapping[str, int]) -> float: ...


@dataclass
class Plan:
    """Index into each group's ``kept``, and the blocks that go."""

    at: dict[str, int]
    removed: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Knapsack:
    """Groups and blocks to choose from, and what they take."""

    groups: Mapping[str, Widths]
    blocks: Mapping[str, Block]
    times: Times

    def solve(self, budget_ms: float) -> Plan:
        """The least damage within the budget.

        Raises:
            RequestError: no choice is within it; names the least there is.
        """
        price, plan = 1e-9, self._at_price(1e-9)
        floor = self.floor_ms()
        if floor > budget_ms:
            raise RequestError(
                f"prune: {budget_ms:.3g} ms cannot be reached; the least that the limits allow is {floor:.3g} ms"
            )
        low = 0.0
        while self.ms(plan) > budget_ms:
            if price > 1e15:  # damages so large that no price outweighs them
                plan = self._least()
                break
            low, price = price, price * 4
            plan = self._at_price(price)
        best, high = plan, price
        for _ in range(_BISECTIONS if low else 0):
            middle = (low * high) ** 0.5
            plan = self._at_price(middle)
            if self.ms(plan) <= budget_ms:
                high = middle
                best = min(best, plan, key=self.damage)
            else:
                low = middle
        return self._given_back(best, budget_ms)

    def ms(self, plan: Plan) -> float:
        return self.times.total(self.kept(plan), plan.removed)

    def damage(self, plan: Plan) -> float:
        inside = {name for b in plan.removed for name in self.blocks[b].inside}
        lost = sum(float(w.damage[plan.at[n]]) for n, w in self.groups.items() if n not in inside)
        return lost + sum(self.blocks[b].damage for b in plan.removed)

    def kept(self, plan: Plan) -> dict[str, int]:
        """Root channels left of each group; of those in a removed block as many as there are."""
        gone = {name for b in plan.removed for name in self.blocks[b].inside}
        return {n: int(w.kept[0 if n in gone else plan.at[n]]) for n, w in self.groups.items()}

    def floor_ms(self) -> float:
        """What is left where everything that may go is gone."""
        return self.ms(self._least())

    def _least(self) -> Plan:
        return Plan({n: len(w.kept) - 1 for n, w in self.groups.items()}, set(self.blocks))

    def _at_price(self, price: float) -> Plan:
        plan = Plan(dict.fromkeys(self.groups, 0))
        for _ in range(_ROUNDS):
            before = dict(plan.at), set(plan.removed)
            for name in self.groups:
                plan.at[name] = self._best_width(name, plan, price)
            for name in self.blocks:
                self._choose_block(name, plan, price)
            if (plan.at, plan.removed) == before:
                break
        return plan

    def _best_width(self, name: str, plan: Plan, price: float) -> int:
        widths = self.groups[name]
        ms = self.times.of_group(name, widths.kept, self.kept(plan), plan.removed)
        return int(np.argmin(widths.damage + price * ms))

    def _choose_block(self, name: str, plan: Plan, price: float) -> None:
        """Whether the block goes, against the best widths that its own groups would have."""
        block = self.blocks[name]
        staying = Plan(dict(plan.at), plan.removed - {name})
        for inner in sorted(block.inside):
            staying.at[inner] = self._best_width(inner, staying, price)
        worth = sum(float(self.groups[n].damage[staying.at[n]]) for n in block.inside)
        worth += price * self.times.of_block(name, self.kept(staying))
        if block.damage < worth:
            plan.removed.add(name)
        else:
            plan.at, plan.removed = staying.at, staying.removed

    def _given_back(self, plan: Plan, budget_ms: float) -> Plan:
        """Widths that still fit, by the damage that each millisecond undoes."""
        left = budget_ms - self.ms(plan)
        while True:
            best: tuple[float, str, int, float] | None = None
            kept, gone = self.kept(plan), {n for b in plan.removed for n in self.blocks[b].inside}
            for name, widths in self.groups.items():
                now = plan.at[name]
                if name in gone or not now:
                    continue
                ms = self.times.of_group(name, widths.kept[: now + 1], kept, plan.removed)
                more, undone = ms[:-1] - ms[-1], widths.damage[now] - widths.damage[:now]
                worth = np.where((more <= left) & (undone > 0), undone / np.maximum(more, 1e-9), 0.0)
                at = int(np.argmax(worth)) if len(worth) else 0
                if worth[at] > 0 and (best is None or worth[at] > best[0]):
                    best = (float(worth[at]), name, at, float(more[at]))
            if best is None:
                return plan
            plan.at[best[1]] = best[2]
            left -= best[3]
