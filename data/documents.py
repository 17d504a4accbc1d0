"""YAML files as plain values with the place of every one of them: line numbers, ``$import`` and no YAML traps.

The reader is YAML 1.1's safe subset with its traps taken out: ``no``/``on`` are text, ``2e-3`` is a number, dates and ``12:30``
stay text, and tags (``!!float``) are refused. A key that occurs twice is an error. Recipes, missions and device profiles are read
with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rsedge.data.errors import RequestError

Loc = tuple[str | int, ...]

IMPORT_KEY = "$import"
_SUFFIXES = (".yaml", ".yml")
MAX_NODES = 100_000
MAX_IMPORTS = 1000
MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_DIGITS = 40
_LEAST, _MOST = -(2**63), 2**64 - 1
_HALF = re.compile("[\ud800-\udfff]")
_NO_TEXT = "half a character (a surrogate without the other), which is no text"
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


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
    """A file as plain values, with the place of every one of them; ``what`` it holds, for error messages."""

    value: Any
    places: dict[Loc, Place]
    what: str = "recipe"

    def place(self, loc: Loc) -> Place:
        """The place of ``loc``, or of the nearest enclosing value."""
        while loc not in self.places and loc:
            loc = loc[:-1]
        return self.places[loc]


class _Loader(yaml.SafeLoader):
    pass


def _build_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    dropped = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "timestamp")}
    kept = {c: [r for r in rs if r[0] not in dropped] for c, rs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    number = re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$", re.I
    )
    whole = re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$")
    for first in "-+0123456789":
        kept.setdefault(first, []).insert(0, ("tag:yaml.org,2002:int", whole))
    for first in "-+.0123456789":
        kept.setdefault(first, []).insert(0, ("tag:yaml.org,2002:float", number))
    for first in "tTfF":
        truth = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")
        kept.setdefault(first, []).append(("tag:yaml.org,2002:bool", truth))
    return kept


_Loader.yaml_implicit_resolvers = _build_resolvers()


def read_document(path: Path, what: str = "recipe", allow: Sequence[Path] = (), flag: str | None = None) -> Document:
    """Reads a YAML file and the files it imports. What others wrote may not read any file of whoever runs it, and errors do not
    show what stands in a file that is no YAML: they name the place.

    Args:
        what: what it should hold, for errors.
        allow: folders that files may be imported from, links followed, beside the file's own.
        flag: the option that adds to them, for errors.

    Raises:
        RequestError: not readable, not YAML, an import cycle or one from elsewhere, or the top is no mapping.
    """
    if "\0" in str(path):
        raise RequestError(f"{str(path)!r}: no such file; a path has no zero byte")
    folders = [Path(os.path.realpath(p)) for p in (path.parent, path.resolve().parent, *allow)]
    document = _Reader(what, folders, flag).read(path, ())
    if not isinstance(document.value, dict):
        raise RequestError(f"{path}:1: a {what} is a mapping of fields, not {kind_of(document.value)}")
    return document


class _Reader:
    def __init__(self, what: str, folders: Sequence[Path] = (), flag: str | None = None, imports: bool = True) -> None:
        self.what, self.folders, self.flag, self.imports = what, folders, flag, imports
        self.nodes, self.files = 0, 0
        self.real_folders: dict[Path, Path] = {}

    def _place(self, path: Path, line: int) -> Place:
        """A line of a file, whose folder is looked up once: there may be many thousand lines."""
        if path not in self.real_folders:
            self.real_folders[path] = path.resolve().parent
        return Place(str(path), line, self.real_folders[path])

    def read(self, path: Path, stack: tuple[Path, ...]) -> Document:
        text = _read_text(path, self.what)
        real = path.resolve()
        if real in stack:
            chain = " -> ".join(p.name for p in (*stack, real))
            raise RequestError(f"{path}: {IMPORT_KEY} goes in a circle: {chain}")
        self.files += 1
        if self.files > MAX_IMPORTS:
            raise RequestError(f"{path}: more than {MAX_IMPORTS} files are imported; this is no {self.what}")
        loader = _loader(text, str(path))
        try:
            node = loader.get_single_node()
            places: dict[Loc, Place] = {(): Place(str(path), 1, real.parent)}
            value = {} if node is None else self._value(loader, node, (), places, path, (*stack, real), ())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise RequestError(f"{path}:{line}: not valid YAML: {_bare(error)}") from error
        except RecursionError as error:
            raise RequestError(f"{path}: not valid YAML: nested too deeply") from error
        finally:
            loader.dispose()
        return Document(value, places, self.what)

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
        if len(open_nodes) > MAX_DEPTH:
            raise RequestError(f"{path}:{line}: nested deeper than {MAX_DEPTH} levels; this is no {self.what}")
        places.setdefault(loc, self._place(path, line))
        inner = (*open_nodes, id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, n, (*loc, i), places, path, stack, inner) for i, n in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, loc, places, path, stack, inner)
        try:
            return _scalar(loader, node)
        except ValueError as error:
            raise RequestError(f"{path}:{line}: this value is not taken: {error}") from error

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
                raise RequestError(f"{path}:{line}: this field is given twice in its mapping")
            if _HALF.search(key):
                raise RequestError(f"{path}:{line}: this field is not taken: {_NO_TEXT}")
            own_places[(*loc, key)] = self._place(path, line)
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
        if not self.imports:
            raise RequestError(f"{place}: {IMPORT_KEY} is for files; write the value itself")
        if not isinstance(name, str):
            raise RequestError(f"{place}: {IMPORT_KEY} takes the relative path of a YAML file")
        other = path.parent / name
        self._check_import(place, other)
        base = self.read(other, stack)
        if not isinstance(base.value, dict):
            raise RequestError(f"{place}: {IMPORT_KEY}: {other} holds {kind_of(base.value)}, not a mapping")
        places.update({(*loc, *k): v for k, v in base.places.items() if k})
        places.update(own_places)
        return merge(base.value, own)

    def _check_import(self, place: Place, other: Path) -> None:
        """Judged by its real place, before anything is said of whether it exists."""
        if "\0" in str(other):
            raise RequestError(f"{place}: {IMPORT_KEY}: not the name of a file")
        real = Path(os.path.realpath(other))
        if not any(real.is_relative_to(folder) for folder in self.folders):
            more = f", or allow its folder: {self.flag} {real.parent}" if self.flag else ""
            raise RequestError(f"{place}: {IMPORT_KEY}: {other} lies outside of {self.folders[0]}; copy it there{more}")
        if real.suffix not in _SUFFIXES:
            raise RequestError(f"{place}: {IMPORT_KEY}: {other} is no {' or '.join(_SUFFIXES)} file")
        if not real.is_file():
            raise RequestError(f"{place}: {IMPORT_KEY}: {other}: no such file")


def _bare(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, without the words of the file."""
    return re.sub(r"\s*('[^'<]{2,}'|!\S+)", "", error.problem or error.context or "")


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top: mappings merge key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _read_text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(f"{path}: larger than {MAX_BYTES} bytes; this is no {what}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text ({error.reason})") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def parse_value(text: str) -> Any:
    """One YAML value from text, by the rules of this reader.

    Raises:
        RequestError: no YAML, or out of its bounds; does not say where.
    """
    if len(text) > MAX_BYTES:
        raise RequestError(f"larger than {MAX_BYTES} bytes")
    loader = _loader(text, "the value")
    try:
        node = loader.get_single_node()
        return (
            None
            if node is None
            else _Reader("value", imports=False)._value(loader, node, (), {}, Path("VALUE"), (), ())
        )
    except yaml.YAMLError as error:
        raise RequestError(f"the value is not valid YAML ({str(error).splitlines()[0]})") from error
    except RecursionError as error:
        raise RequestError("the value is not valid YAML (nested too deeply)") from error
    finally:
        loader.dispose()


def _loader(text: str, where: str) -> _Loader:
    """Raises as :func:`parse_value`; the signs that YAML does not allow are found here."""
    try:
        return _Loader(text)
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from error


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    """A plain value of bounded length; errors do not show it.

    Raises:
        ValueError: a tag, half a character, or a number that no 64 bits hold.
    """
    if node.tag not in _PLAIN:
        raise ValueError("tags are not read here; write the value plainly")
    number = node.tag.rpartition(":")[2] in ("int", "float")
    if number and len(node.value) > MAX_DIGITS:
        raise ValueError(f"number of {len(node.value)} signs")
    try:
        value = loader.construct_object(node)
    except (ValueError, KeyError) as error:
        raise ValueError("no value of the tag that it is written with") from error
    if isinstance(value, str) and _HALF.search(value):
        raise ValueError(_NO_TEXT)
    if type(value) is int and not _LEAST <= value <= _MOST:
        raise ValueError("number that no 64 bits hold")
    return value


def dotted(loc: Loc) -> str:
    """A path of keys and indices as text: ``steps[0].distill.lr``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def kind_of(value: Any) -> str:
    """What a plain value is, in words."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
