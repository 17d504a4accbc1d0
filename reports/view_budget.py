"""What a report says of a mission's budget, in words; no HTML here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsedge.devices.mission.budget import Amount, Budget, amount_text
from rsedge.reports import figures as f

ASSUMPTIONS = 5
"""Shown of those that move the result."""


@dataclass(frozen=True)
class BudgetView:
    """A mission's budget in words, and the figures it came from."""

    name: str
    about: str
    result: str
    facts: list[tuple[str, str]]
    notes: list[str]


def budget_view(budget: Budget) -> BudgetView:
    """Result, bottleneck and facts; what is predicted says so, and so does what is assumed."""
    mode = f", power mode {budget.power_mode}" if budget.power_mode else ""
    headline = amount_text(budget.result, budget.provenance == "predicted")
    result = f"{headline}. Bottleneck: {budget.bottleneck}; {budget.why}."
    facts = [*_facts(budget), *((name, str(figure)) for name, figure in budget.figures.items()), *_assumed(budget)]
    return BudgetView(budget.target, f"{budget.mission}{mode}", result, facts, list(budget.notes))


def _assumed(budget: Budget) -> list[tuple[str, str]]:
    """What the result would be with other values of what nobody gave."""
    word = "predicted " if budget.provenance == "predicted" else ""

    def then(amount: Amount) -> str:
        return f"{word}{f.significant(amount.low)} to {f.significant(amount.high)} {amount.unit}"

    rows = [
        (f"assumed: {one.name} {one.value:g}; if it were {one.low:g} to {one.high:g}", then(one.result))
        for one in budget.assumptions[:ASSUMPTIONS]
    ]
    return (
        rows
        if budget.assumed is None
        else [*rows, ("all assumptions at their worse and better ends", then(budget.assumed))]
    )


def _facts(budget: Budget) -> list[tuple[str, str]]:
    """(name, value) of what a mission planner asks for; ranges of predicted figures carry the word."""
    used = f"{_amount(budget.energy_wh)} of {f.significant(budget.energy_available_wh)} Wh"
    rows = [("energy of the computer", used)]
    rows += [(f"data, {name}", _amount(a.model_copy(update=_mega(a)))) for name, a in budget.data.items()]
    return rows + [(name, _amount(a)) for name, a in budget.facts.items()]


def _mega(amount: Amount) -> dict[str, Any]:
    return {"low": amount.low / 1e6, "mid": amount.mid / 1e6, "high": amount.high / 1e6, "unit": "MB"}


def _amount(amount: Amount) -> str:
    if amount.is_exact:
        return f"{f.significant(amount.mid)} {amount.unit}"
    return f"predicted {f.significant(amount.low)} to {f.significant(amount.high)} {amount.unit}"
