"""Packages of others that bring teachers: found by their entry points, nothing is registered by hand. Imports no torch.

A package names itself under :data:`GROUP`; it holds ``rows/*.yaml``, laid out as ``models/rows`` here, and one module per family
with a ``FAMILY`` (:class:`rsedge.models.families.Family`)::

    [project.entry-points."rsedge.teachers"]
    our-lab = "our_lab.teachers"
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from types import ModuleType

from rsedge.data.errors import RequestError

GROUP = "rsedge.teachers"


@cache
def packages() -> dict[str, ModuleType]:
    """The packages that bring teachers, by their names.

    Raises:
        RequestError: one cannot be imported, or is no package.
    """
    found = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.value):
        try:
            module = importlib.import_module(entry.value)
        except Exception as error:  # another's code, which may raise anything
            raise RequestError(f"{_where(entry)} cannot be imported: {error}; update it or uninstall it") from error
        if not hasattr(module, "__path__"):
            raise RequestError(
                f"{_where(entry)} is a module; {GROUP} takes a package with rows/*.yaml and its families"
            )
        found[entry.value] = module
    return found


def _where(entry: metadata.EntryPoint) -> str:
    named = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"teachers' package '{entry.value}'{named}"


def row_files() -> list[tuple[str, Traversable]]:
    """(package, file) of every table of rows that others bring, in the order of their names."""
    found = []
    for name in packages():
        folder = resources.files(name) / "rows"
        if not folder.is_dir():
            raise RequestError(
                f"teachers' package '{name}': it has no folder rows with *.yaml; see docs/own-teachers.md"
            )
        files = (p for p in folder.iterdir() if p.name.endswith(".yaml"))
        found += [(name, path) for path in sorted(files, key=lambda p: p.name)]
    return found
