"""The code of what a program registers, so that a stage can tell whether it changed. Imports no torch."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of

PACKAGE = "rsedge"


def code_of(callables: Iterable[Callable[..., Any]], where: str) -> str:
    """Hash of the modules that hold ``callables`` and of those loaded that lie beside them: their package's, or of a single file
    those in its folder. Ours do not count.

    Raises:
        RequestError: one is no function or class at the top of a module in a file; names it after ``where``.
    """
    files: dict[str, str] = {}
    for one in callables:
        module = _module(one, where)
        if module.__name__.partition(".")[0] != PACKAGE:
            files |= {name: sha256_file(path) for name, path in _beside(module)}
    return sha256_of(files)


def _module(one: Callable[..., Any], where: str) -> ModuleType:
    named = getattr(one, "__qualname__", type(one).__qualname__)
    module = sys.modules.get(str(getattr(one, "__module__", None)))
    fixed = (inspect.isfunction(one) or inspect.isclass(one)) and "<locals>" not in named
    if not fixed or module is None or _file(module) is None:
        raise RequestError(
            f"{where}: '{named}' is no function or class at the top of a module in a file, so nothing could tell when it changes; "
            "write it so"
        )
    return module


def _beside(module: ModuleType) -> Iterator[tuple[str, Path]]:
    own, package = _file(module), (module.__package__ or "").partition(".")[0]
    assert own is not None
    yield module.__name__, own
    for name, other in sorted(sys.modules.items()):
        if name == "__main__" or other is None or (name.partition(".")[0] != package if package else "." in name):
            continue
        path = _file(other)
        if path is not None and (package or path.parent == own.parent):
            yield name, path


def _file(module: ModuleType) -> Path | None:
    path = Path(str(getattr(module, "__file__", None) or ""))
    return path.resolve() if path.is_file() else None
