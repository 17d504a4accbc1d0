"""Where files lie, apart from what a recipe says: paths are found by the schema, absolute to run, left out of keys and hashes."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rsedge.data.documents import Loc
from rsedge.data.files import sha256_of
from rsedge.data.samples.tables import SUFFIXES
from rsedge.data.sets.sample_sources import options_model
from rsedge.models.zoo import FILE_LOADERS, OUTPUT_MARK
from rsedge.recipe.data import SampleSetSection
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.schema import Recipe, TeacherSection

Change = Callable[[str, Loc], str]
"""A path as it is written, and where it stands -> what is to stand there."""
PARTS = "parts"
ANYWHERE = "(file)"
"""Stands for a path: what lies there is hashed where it is read."""


def with_paths(value: Any, kinds: Sequence[Any], change: Change, loc: Loc = ()) -> Any:
    """A plain value of the schema's ``kinds`` with every path in it changed."""
    if isinstance(value, str):
        is_file = Path in kinds or any(getattr(k, "bare_path", False) for k in kinds)
        return change(value, loc) if is_file else value
    if isinstance(value, list):
        inner = [k for kind in kinds for a in typing.get_args(kind) for k in _kinds(a)]
        return [with_paths(item, inner, change, (*loc, i)) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        if isinstance(item, str) and (named := _named_file(key, value, kinds)) is not None:
            head, place, tail = named
            found[key] = f"{head}{change(place, (*loc, key))}{tail}"
        else:
            found[key] = with_paths(item, _inner(key, value, kinds), change, (*loc, key))
    return found


def _inner(key: str, value: Mapping[str, Any], kinds: Sequence[Any]) -> list[Any]:
    """What a field of a mapping of ``kinds`` may be."""
    if key == "options" and SampleSetSection in kinds:
        return [k for k in (options_model(value.get("source")),) if k is not None]
    fields = [k.model_fields[key].annotation for k in kinds if _is_section(k) and key in k.model_fields]
    fields += [typing.get_args(k)[1] for k in kinds if typing.get_origin(k) is dict]
    return [k for annotation in fields for k in _kinds(annotation)]


def _named_file(key: str, value: Mapping[str, Any], kinds: Sequence[Any]) -> tuple[str, str, str] | None:
    """Of a text that may be the name of a file: what stands before the path, the path, what stands behind it."""
    text = value[key]
    if key == "name" and any(_is_section(k) and issubclass(k, TeacherSection) for k in kinds):
        return in_name(text)
    if key == "source" and SampleSetSection in kinds and text.endswith(SUFFIXES) and value.get("root") is None:
        return "", text, ""
    return None


def in_name(name: str) -> tuple[str, str, str] | None:
    """``onnx:``, the file and ``#output`` of a teacher's name; None where it names no file or folder."""
    loader, _, rest = name.partition(":")
    if loader not in FILE_LOADERS or not rest:
        return None
    file, mark, output = rest.partition(OUTPUT_MARK)
    return f"{loader}:", file, f"{mark}{output}"


def _kinds(annotation: Any) -> list[Any]:
    """What an annotation may be, unions and ``Annotated`` taken apart."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [k for a in typing.get_args(annotation) for k in _kinds(a)]
    return [annotation]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, BaseModel)


def placeless(section: BaseModel) -> dict[str, Any]:
    """A section as plain values in which paths are left out, for keys: the contents that lie there have hashes of their own."""
    found: dict[str, Any] = with_paths(section.model_dump(mode="json"), [type(section)], _anywhere)
    return found


def placeless_name(name: str) -> str:
    """A teacher's name without where its file lies."""
    named = in_name(name)
    return name if named is None else f"{named[0]}{ANYWHERE}{named[2]}"


def recipe_hash(values: Mapping[str, Any]) -> str:
    """Hash of what a resolved recipe says about the result, wherever its files lie."""
    kind = PartsRecipe if PARTS in values else Recipe
    said = {name: value for name, value in values.items() if name not in kind.aside}
    return sha256_of(with_paths(said, [kind], _anywhere))


def _anywhere(path: str, loc: Loc) -> str:
    return ANYWHERE
