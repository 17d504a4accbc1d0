"""A search's space read and checked against its recipe, before any work."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from rsedge.data.document_check import checked, nearest, parse_loc
from rsedge.data.documents import read_document
from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS
from rsedge.models.students import CATALOGUE
from rsedge.models.students.options import student_options
from rsedge.pipeline.run import plan
from rsedge.recipe.checks import metric_fits
from rsedge.recipe.reading import resolved
from rsedge.recipe.schema import Recipe
from rsedge.recipe.student_auto import AUTO
from rsedge.search.default import default_space
from rsedge.search.space import COSTS, Space, SpaceFile, label

FREE = ("student", "steps", "data.augment", "data.calibration", "teacher.input.tile", "tensorrt")
"""What may be varied, by how paths begin: all else says what is judged, or by what."""
DRAWS = 40
"""Random points of which one must be a recipe that can run."""


def read_space(path: Path | None, recipe: Recipe) -> Space:
    """The space of a file, or one derived from the recipe, checked against the recipe.

    Raises:
        RequestError: it cannot be read, a variable names no field or none that may vary, or nothing in it can run.
    """
    if path is None:
        return _checked(Space("the default space", recipe, resolved(recipe), default_space(recipe)))
    file = checked(read_document(path, "search space"), SpaceFile)
    return _checked(Space(str(path), recipe, resolved(recipe), file))


def _checked(space: Space) -> Space:
    problems = [*_target_problems(space), *_objective_problems(space)]
    if not space.file.variables:
        problems.append("variables: none is named; name fields of the recipe, such as steps.distill.lr: [1e-3, 2e-3]")
    problems += [p for name in space.file.variables for p in _variable_problems(space, name)]
    problems += [] if problems else _overlaps(space)
    if problems:
        count = "" if len(problems) == 1 else f" ({len(problems)} problems)"
        raise RequestError(
            f"{space.where}: the search space does not fit the recipe{count}:\n  " + "\n  ".join(problems)
        )
    _check_possible(space)
    return space


def _target_problems(space: Space) -> list[str]:
    known = space.recipe.targets
    wrong = [name for name in space.targets if name not in known]
    twice = len(set(space.targets)) < len(space.targets)
    found = [
        f"target: '{n}' is not in the recipe's targets{nearest(n, known)}; they are {', '.join(known)}" for n in wrong
    ]
    return [
        *found,
        *(["target: one is there twice"] if twice else []),
        *([] if space.targets else ["target: the list is empty"]),
    ]


def _objective_problems(space: Space) -> list[str]:
    known = [
        *COSTS,
        *(name for name, row in METRICS.items() if name not in COSTS and not {"measurement", "folds"} & set(row.needs)),
    ]
    asked = space.file.objectives or ()
    wrong = [name for name in asked if name not in known]
    found = [f"objectives: '{n}' is unknown{nearest(n, known)}; known: {', '.join(known)}" for n in wrong]
    found += [p for n in asked if n in known and n not in COSTS for p in metric_fits("objectives", n, space.recipe)]
    return [*found, *(["objectives: one is there twice"] if len(set(asked)) < len(asked) else [])]


def _variable_problems(space: Space, name: str) -> list[str]:
    where = f"variables.{name}"
    top = str(parse_loc(name)[0])
    if not any(name == free or name.startswith((f"{free}.", f"{free}[")) for free in FREE):
        fields = list(Recipe.model_fields)
        if top not in fields:
            return [f"{where}: no such field of a recipe{nearest(top, fields)}; these may vary: {', '.join(FREE)}"]
        return [f"{where}: may not vary, so that all candidates are judged alike; these may: {', '.join(FREE)}"]
    for value in space.file.variables[name].ends:
        try:
            recipe = space.recipe_at({name: value})
            if (unknown := _unknown_option(recipe)) is not None:
                return [f"{where}: {unknown}"]
            plan(recipe)
        except RequestError as error:
            return [f"{where}: with {label(value)}: {_bare(str(error), f'{space.where}: {where}: ')}"]
    return []


def _overlaps(space: Space) -> list[str]:
    """Variables of which one would write over another: what a point says would not be what was tried."""
    fields = {name: space.field(name) for name in space.file.variables}
    return [
        f"variables.{inner}: stands in {outer}, which varies too; name one of the two"
        for (outer, place), (inner, within) in itertools.permutations(fields.items(), 2)
        if within[: len(place)] == place and (within != place or outer < inner)
    ]


def _bare(words: str, where: str) -> str:
    """What is wrong with a recipe, without the heading and without the place, which stands there already."""
    heading, *lines = [line.strip().removeprefix(where) for line in words.splitlines()]
    return "; ".join(lines) or heading


def _unknown_option(recipe: Recipe) -> str | None:
    """A field of ``student`` that its builder does not take, which the recipe's schema cannot tell."""
    entry = CATALOGUE.get(recipe.student.name)
    if recipe.student.name == AUTO or entry is None or entry.copies:
        return None
    known = [option.name for option in student_options(entry.name)]
    wrong = next((name for name in recipe.student.options if name not in known), None)
    return (
        None
        if wrong is None
        else f"student '{entry.name}' takes no '{wrong}'{nearest(wrong, known)}; it takes {', '.join(known)}"
    )


def _check_possible(space: Space) -> None:
    """
    Raises:
        RequestError: of many points at random none can run; says why one cannot.
    """
    dice, why = random.Random(space.file.seed), ""
    for point in (space.draw(dice) for _ in range(DRAWS)):
        try:
            plan(space.recipe_at(point))
        except RequestError as error:
            why = str(error)
            continue
        return
    raise RequestError(
        f"{space.where}: the search space is impossible: none of {DRAWS} points at random can run; the last: {why}"
    )
