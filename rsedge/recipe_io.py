"""Reading and writing recipes: YAML with line numbers, ``$import``, ``--set`` and errors that name the place.

The reader is YAML 1.1's safe subset with three traps taken out: ``no``/``on`` are text, ``2e-3`` is a number, and dates
stay text. A key that occurs twice is an error.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes
from rsedge.recipe import Recipe

Loc = tuple[str | int, ...]

IMPORT_KEY = "$import"
MAX_NODES = 100_000
MAX_BYTES = 1_000_000
# Values under these keys are files; they are read relative to the recipe file they stand in.
PATH_KEYS = ("checkpoint", "path", "labels", "key")


@dataclass(frozen=True)
class Place:
    """Where a value was written."""

    file: str
    line: int | None = None
    folder: Path = field(default_factory=Path.cwd, compare=False)

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Document:
    """A recipe as plain values, with the place of every one of them."""

    value: Any
    places: dict[Loc, Place]

    def place(self, loc: Loc) -> Place:
        """The place of ``loc``, or of the nearest enclosing value."""
        while loc not in self.places and loc:
            loc = loc[:-1]
        return self.places[loc]


class _Loader(yaml.SafeLoader):
    pass


def _build_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    dropped = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    kept = {c: [r for r in rs if r[0] not in dropped] for c, rs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    number = re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$", re.I
    )
    for first in "-+.0123456789":
        kept.setdefault(first, []).insert(0, ("tag:yaml.org,2002:float", number))
    for first in "tTfF":
        truth = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")
        kept.setdefault(first, []).append(("tag:yaml.org,2002:bool", truth))
    return kept


_Loader.yaml_implicit_resolvers = _build_resolvers()


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
    near = difflib.get_close_matches(path.name.removesuffix(".yaml"), names, n=1)
    hint = f" (nearest: '{near[0]}')" if near else ""
    ready = ", ".join(names) or "none"
    raise RequestError(f"{recipe}: no such recipe file, and no ready recipe of that name{hint}; ready: {ready}")


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe, with ``--set`` overrides applied.

    Raises:
        RequestError: the file, its YAML, an override or a field is wrong; all field errors are reported at once.
    """
    document = read_document(find_recipe(recipe))
    for override in overrides:
        apply_override(document, override)
    return check_document(document)


def read_document(path: Path) -> Document:
    """Reads a YAML file and the files it imports.

    Raises:
        RequestError: not readable, not YAML, an import cycle, or the top is no mapping.
    """
    document = _Reader().read(path, ())
    if not isinstance(document.value, dict):
        raise RequestError(f"{path}:1: a recipe is a mapping of fields, not {_kind(document.value)}")
    return document


class _Reader:
    def __init__(self) -> None:
        self.nodes = 0

    def read(self, path: Path, stack: tuple[Path, ...]) -> Document:
        real = path.resolve()
        if real in stack:
            chain = " -> ".join(p.name for p in (*stack, real))
            raise RequestError(f"{path}: {IMPORT_KEY} goes in a circle: {chain}")
        loader = _Loader(_read_text(path))
        try:
            node = loader.get_single_node()
            places: dict[Loc, Place] = {(): Place(str(path), 1, real.parent)}
            value = {} if node is None else self._value(loader, node, (), places, path, (*stack, real), ())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise RequestError(f"{path}:{line}: not valid YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise RequestError(f"{path}: not valid YAML: {error}") from error
        except RecursionError as error:
            raise RequestError(f"{path}: not valid YAML: nested too deeply") from error
        finally:
            loader.dispose()
        return Document(value, places)

    def _value(
        self,
        loader: _Loader,
        node: yaml.Node,
        loc: Loc,
        places: dict[Loc, Place],
        path: Path,
        stack: tuple[Path, ...],
        open_nodes: tuple[int, ...],
    ) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        if self.nodes > MAX_NODES or id(node) in open_nodes:
            raise RequestError(f"{path}:{line}: YAML aliases expand without end")
        places.setdefault(loc, Place(str(path), line, path.resolve().parent))
        inner = (*open_nodes, id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, n, (*loc, i), places, path, stack, inner) for i, n in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, loc, places, path, stack, inner)
        return loader.construct_object(node)

    def _mapping(
        self,
        loader: _Loader,
        node: yaml.MappingNode,
        loc: Loc,
        places: dict[Loc, Place],
        path: Path,
        stack: tuple[Path, ...],
        open_nodes: tuple[int, ...],
    ) -> Any:
        own: dict[str, Any] = {}
        own_places: dict[Loc, Place] = {loc: places[loc]}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key == "<<":
                raise RequestError(
                    f"{path}:{line}: keys are plain names here; to reuse a mapping, write {IMPORT_KEY}: other.yaml"
                )
            if key in own:
                raise RequestError(f"{path}:{line}: {dotted((*loc, key))} is given twice")
            own_places[(*loc, key)] = Place(str(path), line, path.resolve().parent)
            own[key] = self._value(loader, value_node, (*loc, key), own_places, path, stack, open_nodes)
        if IMPORT_KEY not in own:
            places.update(own_places)
            return own
        return self._imported(own, own_places, loc, places, path, stack)

    def _imported(
        self,
        own: dict[str, Any],
        own_places: dict[Loc, Place],
        loc: Loc,
        places: dict[Loc, Place],
        path: Path,
        stack: tuple[Path, ...],
    ) -> Any:
        name = own.pop(IMPORT_KEY)
        place = own_places.pop((*loc, IMPORT_KEY))
        if not isinstance(name, str):
            raise RequestError(f"{place}: {IMPORT_KEY} takes the relative path of a YAML file")
        other = path.parent / name
        if not other.is_file():
            raise RequestError(f"{place}: {IMPORT_KEY}: {other}: no such file")
        base = self.read(other, stack)
        if not isinstance(base.value, dict):
            raise RequestError(f"{place}: {IMPORT_KEY}: {other} holds {_kind(base.value)}, not a mapping")
        places.update({(*loc, *k): v for k, v in base.places.items() if k})
        places.update(own_places)
        return merge(base.value, own)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top: mappings merge key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(f"{path}: larger than {MAX_BYTES} bytes; this is no recipe")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from error


def parse_loc(text: str) -> Loc:
    """``a.b[0].c`` or ``a.b.0.c`` as a path of keys and indices."""
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    return tuple(int(p) if p.isdigit() else p for p in parts)


def dotted(loc: Loc) -> str:
    """A path of keys and indices as text: ``steps[0].distill.lr``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def apply_override(document: Document, override: str) -> None:
    """Sets one value from ``a.b[0].c=VALUE``; VALUE is read as YAML. ``steps.distill.lr`` finds the step by its name.

    Raises:
        RequestError: no ``=``, bad YAML, or the path leads through something that is no mapping or list.
    """
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise RequestError(f"--set {override}: write field=value, e.g. --set steps.distill.lr=1e-3")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {override}: the value is not valid YAML ({_first_line(error)})") from error
    loc: Loc = ()
    node = document.value
    parts = parse_loc(name.strip())
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        key, node = _descend(node, part, loc, override, None if not last else value, last)
        loc = (*loc, *key)
    place = Place(f"--set {override}")
    for known in [k for k in document.places if k[: len(loc)] == loc]:
        del document.places[known]
    document.places[loc] = place


def _descend(node: Any, part: str | int, loc: Loc, override: str, value: Any, last: bool) -> tuple[Loc, Any]:
    where = f"--set {override}: {dotted(loc) or 'the recipe'}"
    if isinstance(node, list):
        return _descend_list(node, part, where, value, last)
    if not isinstance(node, dict):
        raise RequestError(f"{where} is {_kind(node)}; it has no field '{part}'")
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
            raise RequestError(f"{where} is a list: give an index from 0 to {len(node) - 1} instead of '{part}'")
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


def check_document(document: Document) -> Recipe:
    """Builds the :class:`Recipe`.

    Raises:
        RequestError: one line per wrong field, each with file, line, field and what would be right.
    """
    _absolute_paths(document.value, (), document)
    _expand_steps(document.value)
    try:
        text = json.dumps(document.value)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{document.place(())}: a value is not plain YAML data ({error})") from error
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        lines = [_error_line(e, document) for e in error.errors()]
    count = "" if len(lines) == 1 else f" ({len(lines)} errors)"
    raise RequestError(f"the recipe is not valid{count}:\n  " + "\n  ".join(lines))


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


def _absolute_paths(value: Any, loc: Loc, document: Document) -> None:
    items: Iterable[tuple[str | int, Any]] = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        inner = (*loc, key)
        if key in PATH_KEYS and isinstance(item, str):
            value[key] = str(document.place(inner).folder / Path(item).expanduser())
        else:
            _absolute_paths(item, inner, document)


def _error_line(error: ErrorDetails, document: Document) -> str:
    loc = tuple(error["loc"])
    field_name = dotted(loc) or "recipe"
    return f"{document.place(loc)}: {field_name}: {_explain(error, loc)}"


def _explain(error: ErrorDetails, loc: Loc) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        names = _field_names(loc[:-1])
        return f"unknown field{_nearest(str(loc[-1]), names)}; valid: {', '.join(names)}"
    if kind == "missing":
        return "required, but not given"
    if kind == "literal_error":
        expected = error["ctx"]["expected"]
        return f"{given!r} is not one of {expected}{_nearest(str(given), _quoted(expected))}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"][0].lower() + error["msg"][1:]
    shown = given if isinstance(given, (str, int, float, bool)) or given is None else _kind(given)
    return f"{message}; got {shown!r}" if not isinstance(given, (dict, list)) else f"{message}; got {_kind(given)}"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (nearest: '{near[0]}')" if near else ""


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _field_names(loc: Loc) -> list[str]:
    annotation: Any = Recipe
    for part in loc:
        model = _model_in(annotation)
        if isinstance(part, int):
            annotation = next((a for a in typing.get_args(annotation) if a is not Ellipsis), None)
        elif model is not None and part in model.model_fields:
            annotation = model.model_fields[part].annotation
    found = _model_in(annotation)
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def dump_recipe(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that loads to the same recipe."""
    return yaml.safe_dump(resolved(recipe), sort_keys=False, allow_unicode=True, width=120)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, defaults included, fields that say nothing left out."""
    values: dict[str, Any] = json.loads(recipe.model_dump_json(exclude_none=True))
    return values


def write_resolved(recipe: Recipe, path: Path) -> None:
    """Writes ``recipe.resolved.yaml`` atomically."""
    header = "# Written by rsedge: the recipe of this run with every default. It can be run again as it is.\n"
    write_bytes(path, (header + dump_recipe(recipe)).encode())
