"""Reading and writing recipes: their paths and short forms; the YAML reader is :mod:`rsedge.data.documents`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rsedge.data.document_check import apply_override, checked, nearest
from rsedge.data.documents import Document, Place, read_document
from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes
from rsedge.data.folders import user_path
from rsedge.data.objects import is_address
from rsedge.data.root import data_root
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.places import PARTS, with_paths
from rsedge.recipe.schema import Recipe

ALLOW_IMPORT = "--allow-import"
AnyRecipe = Recipe | PartsRecipe


def packaged_recipes() -> list[str]:
    """Names of the ready recipes in the wheel."""
    files = resources.files("rsedge.recipes").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given as a path or as a ready recipe's name.

    Raises:
        RequestError: neither exists.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = packaged_recipes()
    if str(recipe) in names:
        return Path(str(resources.files("rsedge.recipes") / f"{recipe}.yaml"))
    hint = nearest(path.name.removesuffix(".yaml"), names)
    ready = ", ".join(names) or "none"
    raise RequestError(f"{recipe}: no such recipe file, and no ready recipe of that name{hint}; ready: {ready}")


def open_recipe(recipe: str | Path | AnyRecipe | Mapping[str, Any], allow_import: Sequence[Path] = ()) -> Document:
    """A recipe as plain values: a file, a ready recipe by its name, or one that was built in Python.

    Raises:
        RequestError: there is no such file, or it is no YAML.
    """
    if isinstance(recipe, Recipe | PartsRecipe | Mapping):
        content = resolved(recipe) if isinstance(recipe, Recipe | PartsRecipe) else json.loads(json.dumps(recipe))
        return Document(content, {(): Place("recipe")})
    ready = Path(str(resources.files("rsedge.recipes")))
    return read_document(find_recipe(recipe), allow=[ready, *allow_import], flag=ALLOW_IMPORT)


def load_recipe(recipe: str | Path, overrides: Sequence[str] = (), allow_import: Sequence[Path] = ()) -> AnyRecipe:
    """Reads and checks a recipe, of one network or of several parts, with ``--set`` overrides applied.

    Args:
        allow_import: folders that it may import from, beside its own and the ready recipes'.

    Raises:
        RequestError: the file, its YAML, an override or a field is wrong; all field errors are reported at once.
    """
    document = open_recipe(recipe, allow_import)
    for override in overrides:
        apply_override(document, override)
    return check_any(document)


def check_any(document: Document) -> AnyRecipe:
    """Builds the recipe of one network, or of several parts where it names some.

    Raises:
        RequestError: as :func:`check_document`.
    """
    return _check_parts(document) if PARTS in document.value else check_document(document)


def check_document(document: Document) -> Recipe:
    """Builds the :class:`Recipe`.

    Raises:
        RequestError: one line per wrong field, each with file, line, field and what would be right.
    """
    _expand_steps(document.value)
    _absolute(document, Recipe)
    return checked(document, Recipe)


def _check_parts(document: Document) -> PartsRecipe:
    parts = document.value[PARTS]
    if isinstance(parts, dict):
        document.value[PARTS] = {name: {} if part is None else part for name, part in parts.items()}
        for part in document.value[PARTS].values():
            if isinstance(part, dict):
                _expand_steps(part)
    _absolute(document, PartsRecipe)
    return checked(document, PartsRecipe)


def _expand_steps(value: dict[str, Any]) -> None:
    """A step may be written as its bare name, or with nothing behind it: both mean its defaults."""
    steps = value.get("steps")
    if not isinstance(steps, list):
        return
    for index, step in enumerate(steps):
        if isinstance(step, str):
            steps[index] = {step: {}}
        elif isinstance(step, dict):
            steps[index] = {k: {} if v is None else v for k, v in step.items()}


def _absolute(document: Document, kind: type[BaseModel]) -> None:
    """Paths are taken from the file they stand in."""
    document.value = with_paths(document.value, [kind], lambda text, loc: str(_file(text, document.place(loc).folder)))


def _file(text: str, folder: Path) -> Path:
    """``data:x`` is x in the folder of shared data (RSEDGE_DATA), addresses stay; other paths are relative to the recipe's file."""
    if text.startswith("data:"):
        return data_root().resolve() / text.removeprefix("data:")
    if is_address(text):
        return Path(text)
    return folder / user_path(text)


def dump_recipe(recipe: AnyRecipe) -> str:
    """The recipe with every default written out, as YAML that loads to the same recipe."""
    return yaml.safe_dump(resolved(recipe), sort_keys=False, allow_unicode=True, width=120)


def resolved(recipe: AnyRecipe) -> dict[str, Any]:
    """The recipe as plain values, defaults included, fields that say nothing left out."""
    values: dict[str, Any] = json.loads(recipe.model_dump_json(exclude_none=True))
    return values


def write_resolved(recipe: AnyRecipe, path: Path) -> None:
    """Writes ``recipe.resolved.yaml`` atomically."""
    write_bytes(path, resolved_text(recipe).encode())


def resolved_text(recipe: AnyRecipe) -> str:
    """What ``recipe.resolved.yaml`` holds."""
    header = "# Written by rsedge: the recipe of this run with every default. It can be run again as it is.\n"
    return header + dump_recipe(recipe)
