"""What can be said of a recipe of several parts before any work and without torch."""

from __future__ import annotations

from rsedge.data.bands import InputSpec
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.record import validated
from rsedge.devices.profiles.profile import check_target
from rsedge.models.zoo import from_columns, zoo
from rsedge.recipe.checks import signing_problems
from rsedge.recipe.parts import PartsRecipe, PartTeacherSection, WholeSection
from rsedge.recipe.track import need_tracker
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
    need_tracker(recipe.track)


def _whole(recipe: PartsRecipe) -> list[str]:
    name = recipe.whole.name
    known = ", ".join(WHOLES)
    if name not in WHOLES:
        return [f"whole: '{name}' is unknown{nearest(name, list(WHOLES))}; known: {known}"]
    return _picture(recipe.whole)


def _picture(whole: WholeSection) -> list[str]:
    if whole.picture is None:
        return []
    if whole.name != "sampled-picture":
        return [f"whole.picture: is of sampled pictures; {whole.name} makes none, leave it out"]
    try:
        validated(InputSpec, from_columns(whole.picture), "whole.picture")
    except RequestError as error:
        return [str(error)]
    except ValueError as error:
        return [f"whole.picture: {error}"]
    return []


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
    # Some rows read a folder; of others, loading says that it wants a file.
    path = section.checkpoint
    return [] if path.exists() else [f"{where}.checkpoint: {path}: no such file or folder"]


def _data(recipe: PartsRecipe) -> list[str]:
    path = recipe.data.samples
    return [] if path.is_file() else [f"data.samples: {path}: no such file"]


def _targets(recipe: PartsRecipe) -> list[str]:
    problems = []
    for name in recipe.targets:
        try:
            check_target(name)
        except RequestError as error:
            problems.append(f"targets: {error}")
    return problems
