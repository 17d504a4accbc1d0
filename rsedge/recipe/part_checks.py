"""What can be said of a recipe of several parts before any work and without torch."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.devices.profiles.profile import check_target
from rsedge.models.zoo import zoo
from rsedge.recipe.checks import signing_problems
from rsedge.recipe.parts import PartsRecipe, PartTeacherSection
from rsedge.runtimes.wholes.table import WHOLES


def preflight_parts(recipe: PartsRecipe) -> None:
    """Refuses a recipe that cannot work.

    Raises:
        RequestError: one line for everything that does not exist or does not fit together.
        MissingCapability: a target's files cannot be made here.
    """
    problems = [
        *_whole(recipe),
        *_teachers(recipe),
        *_data(recipe),
        *_targets(recipe),
        *signing_problems(recipe.signing.key),
    ]
    if problems:
        count = "" if len(problems) == 1 else f" ({len(problems)} problems)"
        raise RequestError(f"recipe '{recipe.name}' cannot run{count}:\n  " + "\n  ".join(problems))
    for target in recipe.parsed_targets:
        target.backend.check(target.precision)


def _whole(recipe: PartsRecipe) -> list[str]:
    name = recipe.whole.name
    known = ", ".join(WHOLES)
    return [] if name in WHOLES else [f"whole: '{name}' is unknown{nearest(name, list(WHOLES))}; known: {known}"]


def _teachers(recipe: PartsRecipe) -> list[str]:
    sections = {"teacher": recipe.teacher, **{f"parts.{n}.teacher": p.teacher for n, p in recipe.parts.items()}}
    return [words for where, one in sections.items() if one is not None for words in _teacher(where, one)]


def _teacher(where: str, section: PartTeacherSection) -> list[str]:
    rows = {row.name: row for row in zoo()}
    if section.name not in rows:
        return [
            f"{where}.name: '{section.name}' is unknown{nearest(section.name, list(rows))}; `rsedge teachers` lists all"
        ]
    row = rows[section.name]
    if section.checkpoint is None:
        return [] if row.weights else [
            f"{where}.checkpoint: '{section.name}' comes without weights; give the file of its authors (see: {row.source})"
        ]  # fmt: skip
    return _file(f"{where}.checkpoint", section.checkpoint)


def _data(recipe: PartsRecipe) -> list[str]:
    return _file("data.samples", recipe.data.samples)


def _file(where: str, path: Path) -> list[str]:
    return [] if path.is_file() else [f"{where}: {path}: no such file"]


def _targets(recipe: PartsRecipe) -> list[str]:
    problems = []
    for name in recipe.targets:
        try:
            check_target(name)
        except RequestError as error:
            problems.append(f"targets: {error}")
    return problems
