"""The space of a search where none is given: the recipe's own student narrower, its learning rate, how far it is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.models.students import CATALOGUE
from rsedge.models.students.options import student_options
from rsedge.recipe.reading import resolved
from rsedge.recipe.schema import Recipe
from rsedge.search.space import SpaceFile, Variable, value_at

WIDTHS = ("stem", "encoder", "decoder", "widths", "width", "channels", "hidden")
"""Options of students that are numbers of channels."""
SHARES = (0.5, 0.75, 1.0)
"""Of the recipe's own widths."""
MULTIPLE = 8
RATES = (0.5, 1.0, 2.0)
CUTS = (-0.2, -0.1, 0.0, 0.1)
"""Beside the recipe's own pruning ratio."""
RATIOS = ("latency_ratio", "macs_ratio", "params_ratio")


def default_space(recipe: Recipe) -> SpaceFile:
    """As few variables as a search of some dozen trials can tell apart, each by choices, so that trials share what they can.

    Raises:
        RequestError: there is nothing in the recipe to vary.
    """
    variables = {**_students(recipe), **_rates(recipe), **_ratios(recipe)}
    if not variables:
        raise RequestError(
            f"recipe '{recipe.name}': nothing that a search varies by default (widths, learning rate, pruning ratio); "
            "name fields in a file: --space space.yaml"
        )
    return SpaceFile(variables=variables)


def _students(recipe: Recipe) -> dict[str, Variable]:
    """The student as it is and narrower: widths go together, for skips join them."""
    entry = CATALOGUE.get(recipe.student.name)
    if entry is None or entry.copies:
        return {}
    own = resolved(recipe)["student"]
    options = {option.name: option.default for option in student_options(entry.name)} | own
    widths = {name: options[name] for name in WIDTHS if _is_width(options.get(name))}
    made = [own | {name: _scaled(value, share) for name, value in widths.items()} for share in SHARES]
    different = [value for i, value in enumerate(made) if value not in made[:i]]
    return {"student": Variable(choices=tuple(different))} if len(different) > 1 else {}


def _is_width(value: Any) -> bool:
    return all(
        isinstance(v, int) and not isinstance(v, bool) for v in (value if isinstance(value, list | tuple) else [value])
    )


def _scaled(value: int | Sequence[int], share: float) -> int | list[int]:
    if isinstance(value, int):
        return value if share == 1 else max(MULTIPLE, round(value * share / MULTIPLE) * MULTIPLE)
    return [one for v in value if isinstance(one := _scaled(v, share), int)]


def _rates(recipe: Recipe) -> dict[str, Variable]:
    if recipe.distill.steps == 0:
        return {}
    rates = tuple(float(f"{recipe.distill.lr * share:.3g}") for share in RATES)
    return {"steps.distill.lr": Variable(choices=rates)}


def _ratios(recipe: Recipe) -> dict[str, Variable]:
    values = resolved(recipe)
    for name in RATIOS:
        own = value_at(values, f"steps.prune.target.{name}")
        if own is not None:
            cuts = tuple(sorted({own, *(round(own + cut, 3) for cut in CUTS if 0.2 <= own + cut <= 0.95)}))
            return {f"steps.prune.target.{name}": Variable(choices=cuts)}
    return {}
