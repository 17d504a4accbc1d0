"""Our own modules that fly: the rooms that do, and what the command line and the front door import as they start."""

from __future__ import annotations

import ast
from pathlib import Path

from rsedge.cache.code_closure import closure, find

TOP = "rsedge"
ROOMS = ("data", "runtimes", "devices")
"""They are taken whole: backends, works and kinds of files are found by tables, not by imports."""
STARTS = ("start", "cli.__main__", "cli.main")
"""Taken with what they import as they are imported, not with what their commands import later."""
LATER = ("flight", "cli.infer", "cli.verify", "cli.watch", "serving.watch")
"""Taken with all they import."""
OTHER = (".yaml", ".json", ".typed")


def our_files() -> dict[str, Path]:
    """Place in the pack -> file here, of modules and of the tables beside them."""
    found: dict[str, Path] = {}
    for room in ROOMS:
        source = find(f"{TOP}.{room}")
        assert source is not None
        top = source.path.parent
        found |= {f"{TOP}/{room}/{p.relative_to(top).as_posix()}": p for p in top.rglob("*") if _flies(p)}
    for name, path in {
        **_eager(),
        **{n: s.path for n, s in closure(tuple(f"{TOP}.{name}" for name in LATER))[0].items()},
    }.items():
        found[_place(name, path)] = path
    return dict(sorted(found.items()))


def _flies(path: Path) -> bool:
    return path.is_file() and path.suffix in (".py", *OTHER) and "__pycache__" not in path.parts


def _place(name: str, path: Path) -> str:
    place = name.replace(".", "/")
    return f"{place}/__init__.py" if path.name == "__init__.py" else f"{place}.py"


def _eager() -> dict[str, Path]:
    """Modules of ours that importing :data:`STARTS` imports: statements outside functions alone."""
    found: dict[str, Path] = {}
    waiting = [TOP, *(f"{TOP}.{name}" for name in STARTS)]
    while waiting:
        name = waiting.pop()
        source = find(name) if name not in found else None
        if source is None:
            continue
        found[name] = source.path
        waiting += [above for above in _above(name) if above not in found]
        for node in _at_import(ast.parse(source.path.read_bytes())):
            waiting += [one for one in _names(node, source.package) if one.split(".")[0] == TOP]
    return found


def _at_import(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run when a module is imported, but for those for types alone."""
    found: list[ast.stmt] = []
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If | ast.Try | ast.With) and not _for_types(node):
            waiting += [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt)]
    return found


def _for_types(node: ast.stmt) -> bool:
    """Whether a block is one that no run enters."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node).partition("\n")[0]


def _names(node: ast.stmt, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]
