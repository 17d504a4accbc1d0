"""What the shell completes: names that recipes and options can take. Nothing that is slow to import is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

Found = list[tuple[str, str]]
"""What begins with the words so far, each with a line about it."""


def begins(names: Iterable[tuple[str, str]], start: str) -> Found:
    """Those that begin with what is written."""
    return [(name, about) for name, about in names if name.startswith(start)]


def teachers(incomplete: str) -> Found:
    """Teachers of the zoo, and loaders of other libraries' networks."""
    from rsedge.models.zoo import LOADER_NAMES, zoo

    rows = [(row.name, row.title) for row in zoo()]
    return begins([*rows, *((f"{loader}:", about) for loader, about in LOADER_NAMES.items())], incomplete)


def zoo_teachers(incomplete: str) -> Found:
    from rsedge.models.zoo import zoo

    return begins(((row.name, row.title) for row in zoo()), incomplete)


def catalogue_students(incomplete: str) -> Found:
    from rsedge.models.students import CATALOGUE

    return begins(((e.name, e.about) for e in CATALOGUE.values()), incomplete)


def students(incomplete: str) -> Found:
    """What recipes can name: the catalogue, and ``auto``."""
    return catalogue_students(incomplete) + begins([("auto", "chosen by latency")], incomplete)


def devices(incomplete: str) -> Found:
    from rsedge.devices.profiles.profile import load_profile, profile_names

    return begins(((name, load_profile(name).title) for name in profile_names()), incomplete)


def targets(incomplete: str) -> Found:
    """Targets of the device profiles; of several with commas between the last."""
    from rsedge.devices.profiles.profile import load_profile, profile_names

    before, comma, start = incomplete.rpartition(",")
    possible = (
        (name, profile) for profile in map(load_profile, profile_names()) for name in profile.possible_targets()
    )
    return [(f"{before}{comma}{name}", profile.title) for name, profile in possible if name.startswith(start)]


def recipes(incomplete: str) -> Found:
    """Ready recipes, YAML files and folders."""
    from rsedge.recipe.reading import packaged_recipes

    found = begins(((name, "ready recipe") for name in packaged_recipes()), incomplete)
    return found + _beside(incomplete, lambda path: path.suffix in (".yaml", ".yml"))


def runs(incomplete: str) -> Found:
    """Folders of runs with a report, first those in ``runs/``; report files, and folders on the way."""
    here = ((str(path.parent), "run") for path in sorted(Path("runs").glob("*/report.json")))
    found = begins(here, incomplete)
    known = {f"{name}/" for name, _ in found}
    return found + [row for row in _beside(incomplete, lambda path: path.name == "report.json") if row[0] not in known]


def _beside(incomplete: str, taken: Callable[[Path], bool]) -> Found:
    """Files that are taken and all folders, where the words so far point to."""
    folder, slash, _ = incomplete.rpartition("/")
    beside = [p for p in Path(folder + slash or ".").glob("*") if taken(p) or p.is_dir()]
    paths = [folder + slash + p.name + ("/" if p.is_dir() else "") for p in sorted(beside)]
    return begins(((path, "") for path in paths), incomplete)


def stages(context: typer.Context, incomplete: str) -> Found:
    """Stages of the recipe on the command line, in order; all that there are where it cannot be read."""
    from rsedge.data.errors import RsedgeError
    from rsedge.recipe.reading import load_recipe
    from rsedge.stages.names import stage_names
    from rsedge.stages.table import STAGES

    names = tuple(row.name for row in STAGES)
    if recipe := context.params.get("recipe"):
        with contextlib.suppress(RsedgeError):
            names = tuple(stage_names(load_recipe(recipe)))
    return begins(((name, "") for name in names), incomplete)


def schema_kinds(incomplete: str) -> Found:
    return begins(
        [
            ("recipe", "what to make"),
            ("parts", "of several parts"),
            ("mission", "orbit or flight"),
            ("device", "a profile"),
            ("report", "report.json"),
        ],
        incomplete,
    )
