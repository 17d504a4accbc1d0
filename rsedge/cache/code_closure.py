"""Which code a stage can run: the modules that its function's module reaches by imports, and the files that they read.

Imports inside functions count, those under ``if TYPE_CHECKING`` do not. A module that imports others of its package by a
computed name (``import_module(f"{__name__}.{name}")``) reaches all of them. Files that lie beside the code (tables in YAML,
templates) are reached where a module opens them through ``importlib.resources`` or ``__file__`` and names them.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rsedge.data.files import sha256_file, sha256_of

PACKAGE = "rsedge"


@dataclass(frozen=True)
class Source:
    """A module's name and file, and the package that its relative imports start from."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Reached:
    """What one module reaches directly: names of modules, and files that are no modules, by names within their package.

    ``digest`` is a hash of what the module itself does: comments, docstrings and layout do not count.
    """

    modules: frozenset[str]
    files: frozenset[tuple[str, Path]]
    digest: str


@cache
def code_hash(modules: tuple[str, ...]) -> str:
    """Hash over all code that ``modules`` can run and the files that it reads; comments, docstrings and layout do not count.

    Raises:
        ModuleNotFoundError: one of ``modules`` does not exist.
    """
    found, files = closure(modules)
    digests = {name: reached(source).digest for name, source in found.items()}
    return sha256_of(digests | {name: sha256_file(path) for name, path in files.items()})


def closure(modules: tuple[str, ...]) -> tuple[dict[str, Source], dict[str, Path]]:
    """The modules that ``modules`` reach, themselves included, and the other files that these read, by name.

    Raises:
        ModuleNotFoundError: one of ``modules`` does not exist.
    """
    found: dict[str, Source] = {}
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        source = find(name)
        if source is None:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
        found[name] = source
        direct = reached(source)
        waiting += direct.modules
        files.update(direct.files)
    return dict(sorted(found.items())), dict(sorted(files.items()))


@cache
def find(name: str) -> Source | None:
    """A module of this package, or another one whose name is given in full; None where there is none."""
    for folder in _folders(name.rpartition(".")[0]):
        last = name.rpartition(".")[2]
        for path in (Path(folder) / last / "__init__.py", Path(folder) / f"{last}.py"):
            if path.is_file():
                return Source(name, path)
    if name.count(".") > 1:
        return None
    # Rooms of this package, which lie elsewhere in a source tree, and modules of others.
    spec = importlib.util.find_spec(name)
    return Source(name, Path(spec.origin)) if spec is not None and spec.origin else None


def _folders(package: str) -> list[str]:
    """Where the modules of a package of ours lie; nothing for names that are none."""
    if package.partition(".")[0] != PACKAGE:
        return []
    if package.count(".") > 1:
        parent = _folders(package.rpartition(".")[0])
        return [f"{folder}/{package.rpartition('.')[2]}" for folder in parent]
    spec = importlib.util.find_spec(package)
    return [] if spec is None else list(spec.submodule_search_locations or ())


@cache
def reached(source: Source) -> Reached:
    """What a module imports anywhere in it but for type checking alone, and the files beside it that it names."""
    names: set[str] = set()
    anchors: set[Source] = set()
    texts: set[str] = set()
    tree = ast.parse(source.path.read_bytes())
    for node in _running(tree):
        names |= set(_imported(node, source))
        anchors |= set(_anchors(node, source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    files = dict(_named_files(anchors, texts))
    names |= {name for name, path in files.items() if path.suffix == ".py"}
    modules = {module for name in {*names, source.name} for module in _ours(name)}
    others = {(name, path) for name, path in files.items() if path.suffix != ".py"}
    return Reached(frozenset(modules - {source.name}), frozenset(others), _digest(tree))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but what stands under ``if TYPE_CHECKING``."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _last_name(expression: ast.expr) -> str:
    """``c`` of ``a.b.c`` or of ``c`` alone; nothing for what is no name."""
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _imported(node: ast.AST, source: Source) -> Iterator[str]:
    """Names that a statement or a call imports: of modules, or of what stands in modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = source.package.split(".")
            base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _last_name(node.func) == "import_module" and node.args:
        yield from _by_computed_name(node.args[0], source)


def _by_computed_name(argument: ast.expr, source: Source) -> Iterator[str]:
    """Names behind ``import_module(...)``: the one in quotes, or all modules of the package that ``{__name__}.`` names."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.JoinedStr) and ast.unparse(argument).startswith(("f'{__name__}.", 'f"{__name__}.')):
        for path in sorted(source.path.parent.iterdir()):
            if path.suffix == ".py" and path.stem != "__init__":
                yield f"{source.name}.{path.stem}"


def _ours(name: str) -> Iterator[str]:
    """The modules of this package that importing a name runs: the packages above it and itself."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if find(module) is not None:
            yield module


def _anchors(node: ast.AST, source: Source) -> Iterator[Source]:
    """Packages whose files a module opens: its own (``__file__``), or a named one (``resources.files("...")``)."""
    package = None
    if isinstance(node, ast.Name) and node.id == "__file__":
        package = find(source.package)
    elif isinstance(node, ast.Call) and _is_resources_files(node.func) and node.args:
        argument = node.args[0]
        package = find(str(argument.value) if isinstance(argument, ast.Constant) else source.package)
    if package is not None:
        yield package


def _is_resources_files(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and called.attr == "files" and _last_name(called.value) == "resources"


def _named_files(packages: set[Source], texts: set[str]) -> Iterator[tuple[str, Path]]:
    """Files of the packages whose own name, or whose folder's, is among the texts of a module; modules by dotted names."""
    for package in packages:
        folder = package.path.parent
        for text in texts & {path.name for path in folder.iterdir()}:
            path = folder / text
            if path.suffix == ".py":
                yield f"{package.name}.{path.stem}", path
            elif path.is_file():
                yield f"{package.name}/{text}", path
            elif not (path / "__init__.py").exists():
                files = (p for p in path.rglob("*") if p.is_file())
                yield from ((f"{package.name}/{p.relative_to(folder).as_posix()}", p) for p in files)


def _digest(tree: ast.AST) -> str:
    """Hash of a module without its docstrings, which this takes out of ``tree``."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [statement for statement in body if not _is_text(statement)]
    return sha256_of(ast.dump(tree))


def _is_text(statement: ast.stmt) -> bool:
    """A docstring, of whatever it stands in or below."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
