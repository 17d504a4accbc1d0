"""What a search varies: a small YAML file beside a recipe, whose variables name fields of the recipe as ``--set`` does.

It is no part of the recipe: the recipe of a trial is a plain one, and what the trials of one search share keeps its key.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import Field, JsonValue, field_validator, model_validator

from rsedge.data.document_check import parse_loc, set_value
from rsedge.data.documents import Document, Loc, Place
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import Recipe
from rsedge.recipe.section import Fraction, Section

Point = dict[str, Any]
"""A value for each variable, by the variable's name."""
TARGET = "target"
"""The variable that chooses among the recipe's targets, where the space names several."""
MOST_STEPS = 1e9
"""Of a variable."""
COSTS = ("latency", "size", "energy")
"""Objectives that are no metrics; less is better."""


class Variable(Section):
    """A field of the recipe: ``choices``, or numbers from ``low`` to ``high``. A list alone is its choices."""

    choices: tuple[JsonValue, ...] | None = Field(default=None, min_length=1)
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        given = {"choices": value} if isinstance(value, list) else value
        listed = isinstance(given, dict) and isinstance(given.get("choices"), list)
        return {**given, "choices": tuple(given["choices"])} if listed else given

    @model_validator(mode="after")
    def _one_kind(self) -> Variable:
        numbers = (self.low, self.high, self.step)
        if self.choices is not None:
            if any(v is not None for v in numbers) or self.log:
                raise ValueError("give choices, or low and high; not both")
            if len({label(c) for c in self.choices}) < len(self.choices):
                raise ValueError("a choice is there twice")
        elif self.low is None or self.high is None:
            raise ValueError("give choices, a list, or low and high, numbers")
        elif not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be less than high {self.high:g}")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log takes a low above 0, and no step")
        elif self.step is not None and (self.high - self.low) / self.step > MOST_STEPS:
            raise ValueError(
                f"from {self.low:g} to {self.high:g} there are too many steps of {self.step:g}; leave step out"
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether it goes over whole numbers."""
        return self.choices is None and all(isinstance(v, int) for v in (self.low, self.high, self.step or 1))

    @property
    def count(self) -> int | None:
        """How many values it has; None where they cannot be counted."""
        if self.choices is not None:
            return len(self.choices)
        if self.log or not (self.whole or self.step):
            return None
        assert self.low is not None and self.high is not None
        return int((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def value(self, number: int) -> JsonValue:
        """One of the values that can be counted, from 0 on. They are never listed: there may be billions."""
        if self.choices is not None:
            return self.choices[number]
        assert self.low is not None and self.high is not None
        value = self.low + number * (self.step or 1)
        return value if self.whole or number == 0 else min(self.high, round(value, 12))

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """Values that stand for all: the choices, or both ends and the middle."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        middle = (self.low + self.high) / 2 if self.count is None else self.value(self.count // 2)
        return self.low, self.high, int(middle) if self.whole and isinstance(middle, float) else middle

    def holds(self, value: Any) -> bool:
        """Whether a value is one of its own."""
        if self.choices is not None:
            return label(value) in {label(v) for v in self.choices}
        assert self.low is not None and self.high is not None
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not (number and self.low <= value <= self.high):
            return False
        return self.count is None or bool(value == self.value(round((value - self.low) / (self.step or 1))))

    def draw(self, dice: random.Random) -> JsonValue:
        """A value at random."""
        if self.count is not None:
            return self.value(dice.randrange(self.count))
        assert self.low is not None and self.high is not None
        return dice.randint(int(self.low), int(self.high)) if self.whole else dice.uniform(self.low, self.high)

    @property
    def words(self) -> str:
        """In a line."""
        if self.choices is not None:
            return " | ".join(label(c) for c in self.choices)
        return (
            f"{self.low:g} to {self.high:g}"
            + (f" by {self.step:g}" if self.step else "")
            + (", log" if self.log else "")
        )


def label(value: JsonValue) -> str:
    """A choice as a text: itself, or as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


class Rungs(Section):
    """Few steps first: at each share of the distillation steps only the better candidates go on."""

    shares: tuple[Fraction, ...] = Field(
        default=(0.25,), description="of the steps, the least first; none: every trial is trained in full"
    )
    keep: float = Field(default=0.5, gt=0, le=1, description="share of the candidates at a rung that goes on")

    @field_validator("shares", mode="after")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("shares rise, such as [0.1, 0.3]")
        return value


class SpaceFile(Section):
    """The file: what is varied, what is sought, and how much is tried first."""

    target: str | tuple[str, ...] | None = Field(
        default=None,
        description="whose latency, size and energy count; several are tried as a variable; the recipe's first if left out",
    )
    variables: dict[str, Variable] = Field(description="field of the recipe, as --set names it -> its values")
    objectives: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="latency, size, energy, and metrics; all that the recipe's gates and the target have if left out",
    )
    rungs: Rungs = Rungs()
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Space:
    """A recipe, and what is varied of it. Every value can run where all else is as in the recipe; not every point has to.

    Attributes:
        where: the file of the space, for errors.
        values: the recipe as plain values, defaults included.
    """

    where: str
    recipe: Recipe
    values: dict[str, Any]
    file: SpaceFile

    @property
    def targets(self) -> tuple[str, ...]:
        """Those that trials are judged on."""
        named = self.file.target
        return (self.recipe.targets[0],) if named is None else (named,) if isinstance(named, str) else named

    @property
    def variables(self) -> dict[str, Variable]:
        """All of them, the target among them where there are several."""
        more = {TARGET: Variable(choices=self.targets)} if len(self.targets) > 1 else {}
        return {**self.file.variables, **more}

    @property
    def size(self) -> int | None:
        """How many points there are; None where they cannot be counted."""
        count = 1
        for variable in self.variables.values():
            if variable.count is None:
                return None
            count *= variable.count
        return count

    def target_of(self, point: Mapping[str, Any]) -> str:
        """Whose figures count at a point."""
        return str(point.get(TARGET, self.targets[0]))

    def recipe_at(self, point: Mapping[str, Any], steps: int | None = None) -> Recipe:
        """The recipe of a point; with so many distillation ``steps`` where they are given.

        Raises:
            RequestError: it is no valid recipe; names the field.
        """
        document = Document(copy.deepcopy(self.values), {(): Place(self.where)})
        for name, value in point.items():
            if name != TARGET:
                set_value(document, name, copy.deepcopy(value), f"{self.where}: variables.{name}")
        if steps is not None:
            set_value(document, "steps.distill.steps", steps, "rungs")
        return check_document(document)

    def field(self, name: str) -> Loc:
        """Where a variable's value stands in the recipe, however its path is written.

        Raises:
            RequestError: nowhere.
        """
        document = Document(copy.deepcopy(self.values), {})
        set_value(document, name, None, f"{self.where}: variables.{name}")
        (found,) = document.places
        return found

    @property
    def base(self) -> Point:
        """The values that the recipe itself has, of those variables that hold them."""
        found = {name: value_at(self.values, name) for name in self.file.variables}
        if TARGET in self.variables:
            found[TARGET] = self.recipe.targets[0]
        return {name: value for name, value in found.items() if self.variables[name].holds(value)}

    def draw(self, dice: random.Random) -> Point:
        """A point at random."""
        return {name: variable.draw(dice) for name, variable in self.variables.items()}

    def text(self) -> str:
        """The file as it would be written, with every default."""
        return yaml.safe_dump(json.loads(self.file.model_dump_json(exclude_defaults=True)), sort_keys=False, width=120)


def value_at(values: Any, name: str) -> Any:
    """What stands at a path of a recipe's plain values; None where nothing does."""
    node = values
    for part in parse_loc(name):
        if isinstance(node, list):
            found = [item[part] for item in node if isinstance(item, dict) and part in item]
            node = found[0] if found else node[part] if isinstance(part, int) and part < len(node) else None
        else:
            node = node.get(str(part)) if isinstance(node, dict) else None
    return node
