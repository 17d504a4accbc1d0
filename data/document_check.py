"""Documents into pydantic models: ``--set`` overrides, and errors that name file, line, field and the nearest name."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rsedge.data.documents import Document, Loc, Place, dotted, kind_of, parse_value
from rsedge.data.errors import RequestError

Model = TypeVar("Model", bound=BaseModel)


def parse_loc(text: str) -> Loc:
    """``a.b[0].c`` or ``a.b.0.c`` as a path of keys and indices."""
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    return tuple(int(p) if p.isdigit() else p for p in parts)


def apply_override(document: Document, override: str) -> None:
    """Sets one value from ``a.b[0].c=VALUE``; VALUE is read as YAML. ``steps.distill.lr`` finds the step by its name.

    Raises:
        RequestError: no ``=``, bad YAML, or the path leads through something that is no mapping or list.
    """
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise RequestError(f"--set {override}: write field=value, e.g. --set steps.distill.lr=1e-3")
    try:
        value = parse_value(text)
    except RequestError as error:
        raise RequestError(f"--set {override}: {error}") from error
    set_value(document, name.strip(), value, f"--set {override}")


def set_value(document: Document, name: str, value: Any, asked: str) -> None:
    """Sets one value by its path, ``a.b[0].c``; ``asked`` says in errors who did.

    Raises:
        RequestError: the path leads through something that is no mapping or list.
    """
    loc: Loc = ()
    node = document.value
    parts = parse_loc(name)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        where = f"{asked}: {dotted(loc) or f'the {document.what}'}"
        key, node = _descend(node, part, where, None if not last else value, last)
        loc = (*loc, *key)
    place = Place(asked)
    for known in [k for k in document.places if k[: len(loc)] == loc]:
        del document.places[known]
    document.places[loc] = place


def _descend(node: Any, part: str | int, where: str, value: Any, last: bool) -> tuple[Loc, Any]:
    if isinstance(node, list):
        return _descend_list(node, part, where, value, last)
    if not isinstance(node, dict):
        raise RequestError(f"{where} is {kind_of(node)}; it has no field '{part}'")
    key = str(part)
    if last:
        node[key] = value
        return (key,), value
    if node.get(key) is None:
        node[key] = {}
    return (key,), node[key]


def _descend_list(node: list[Any], part: str | int, where: str, value: Any, last: bool) -> tuple[Loc, Any]:
    if isinstance(part, str):
        hits = [i for i, item in enumerate(node) if item == part or (isinstance(item, dict) and part in item)]
        if len(hits) != 1:
            names = [
                key for item in node for key in (item if isinstance(item, dict) else [item]) if isinstance(key, str)
            ]
            near = nearest(part, names) if not hits else ""
            raise RequestError(f"{where} is a list: give an index from 0 to {len(node) - 1} instead of '{part}'{near}")
        index: Loc = (hits[0], part)
        if not isinstance(node[hits[0]], dict):
            node[hits[0]] = {part: None}
        holder, key = node[hits[0]], part
        if last:
            holder[key] = value
        elif holder[key] is None:
            holder[key] = {}
        return index, holder[key]
    if part >= len(node):
        raise RequestError(f"{where} has {len(node)} entries; index {part} is past the end")
    if last:
        node[part] = value
    return (part,), node[part]


def checked(document: Document, model: type[Model]) -> Model:
    """Builds ``model`` from a document.

    Raises:
        RequestError: one line per wrong field, each with file, line, field and what would be right.
    """
    try:
        text = json.dumps(document.value)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{document.place(())}: a value is not plain YAML data ({error})") from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = _own_errors(error.errors())
        lines = list(dict.fromkeys(_error_line(e, document, model) for e in found))
    count = "" if len(lines) == 1 else f" ({len(lines)} errors)"
    raise RequestError(f"the {document.what} is not valid{count}:\n  " + "\n  ".join(lines))


def _own_errors(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """All but those of lists that are too short only because what stands in them is wrong."""
    return [e for e in errors if e["type"] != "too_short" or not any(_within(o["loc"], e["loc"]) for o in errors)]


def _within(loc: tuple[str | int, ...], outer: tuple[str | int, ...]) -> bool:
    return len(loc) > len(outer) and loc[: len(outer)] == outer


def _error_line(error: ErrorDetails, document: Document, model: type[BaseModel]) -> str:
    loc = tuple(p for p in error["loc"] if not _is_form(p))
    field_name = dotted(loc) or document.what
    place = document.place(loc)
    if place.line is not None and not _is_plainly_one(document, place.file, model):
        # Nothing of it is shown: it may be anyone's, named by whoever wrote the recipe.
        return f"{place.file}: is no {document.what} and no part of one: most of its fields are unknown there"
    return f"{place}: {field_name}: {_explain(error, tuple(error['loc']), model)}"


def _is_plainly_one(document: Document, file: str, model: type[BaseModel]) -> bool:
    """Whether at least half of what stands on top in a file are fields of the section where it stands."""
    locs = [loc for loc, place in document.places.items() if loc and place.file == file]
    top = min((len(loc) for loc in locs), default=0)
    held = {loc for loc in locs if len(loc) == top}
    known = [loc for loc in held if _takes(_sections([model], loc[:-1]), loc[-1])]
    return 2 * len(known) >= len(held)


def _takes(sections: Sequence[type[BaseModel]] | None, name: str | int) -> bool:
    if sections is None or not sections:
        return True  # a place for values of any kind
    fields = {field for s in sections for field in (*s.model_fields, *getattr(s, "renamed", {}))}
    return name in fields or any(s.model_config.get("extra") == "allow" for s in sections)


def _sections(models: Sequence[type[BaseModel]], loc: Loc) -> Sequence[type[BaseModel]] | None:
    """The sections that may stand at a place, of unions all; None where anything may."""
    for part in loc:
        if not isinstance(part, int):
            inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
            models = [found for annotation in inner for found in _models_in(annotation)]
        if not models:
            return None
    return models


def _is_form(part: str | int) -> bool:
    """Whether a part of a path says which form a section has, ``(name)``, and so is no field of the document."""
    return isinstance(part, str) and part.startswith("(")


def _explain(error: ErrorDetails, loc: Loc, model: type[BaseModel]) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        section = _section(model, loc[:-1])
        renamed: Mapping[str, str] = getattr(section, "renamed", {})
        if str(loc[-1]) in renamed:
            return f"no longer a field: {renamed[str(loc[-1])]}"
        names = list(section.model_fields) if section else []
        return f"unknown field{nearest(str(loc[-1]), names)}; valid: {', '.join(names)}"
    if kind == "missing":
        return "required, but not given"
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        return f"{given!r} is not one of {expected}{nearest(str(given), _quoted(expected))}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"][0].lower() + error["msg"][1:]
    shown = given if isinstance(given, (str, int, float, bool)) or given is None else kind_of(given)
    return f"{message}; got {shown!r}" if not isinstance(given, (dict, list)) else f"{message}; got {kind_of(given)}"


def nearest(name: str, names: Sequence[str], cutoff: float = 0.6) -> str:
    """``" (nearest: 'x')"``, or nothing where no name is near."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f" (nearest: '{near[0]}')" if near else ""


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _section(top: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    annotation: Any = top
    for part in loc:
        model = _model_in(annotation)
        if _is_form(part):
            forms = typing.get_args(annotation)
            annotation = next(f for f in forms if any(getattr(m, "tag", "") == part for m in typing.get_args(f)))
        elif isinstance(part, int):
            annotation = next((a for a in typing.get_args(annotation) if a is not Ellipsis), None)
        elif model is not None and part in model.model_fields:
            annotation = model.model_fields[part].annotation
    return _model_in(annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if (found := _model_in(annotation)) is annotation and found is not None:
        return [found]
    return [m for a in typing.get_args(annotation) for m in _models_in(a)]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)
