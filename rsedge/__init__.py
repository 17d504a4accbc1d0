"""Edge deployment and compression for remote-sensing foundation models.

What stands in ``__all__`` is the whole promise; each name is imported when it is first used, so that ``import rsedge`` is cheap and
needs the standard library alone (this file travels to devices, down to Python 3.8).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rsedge.quiet import keep_quiet
from rsedge.version import __version__

if TYPE_CHECKING:
    from rsedge.api import Quantized, Run, Student, as_student, distill, export, prune, quantize, run
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.data.errors import GateFailed, IntegrityError, MissingCapability, RequestError, RsedgeError
    from rsedge.flight import Bundle, load
    from rsedge.recipe.schema import Recipe

__all__ = [
    "BandSpec",
    "Bundle",
    "GateFailed",
    "InputSpec",
    "IntegrityError",
    "MissingCapability",
    "Quantized",
    "Recipe",
    "RequestError",
    "RsedgeError",
    "Run",
    "Student",
    "__version__",
    "as_student",
    "distill",
    "export",
    "load",
    "prune",
    "quantize",
    "run",
]

_WHERE = {
    "rsedge.api": ("Quantized", "Run", "Student", "as_student", "distill", "export", "prune", "quantize", "run"),
    "rsedge.flight": ("Bundle", "load"),
    "rsedge.data.bands": ("BandSpec", "InputSpec"),
    "rsedge.data.errors": ("GateFailed", "IntegrityError", "MissingCapability", "RequestError", "RsedgeError"),
    "rsedge.recipe.schema": ("Recipe",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

# In a checkout the rooms lie beside this folder, which hides an installed package from whoever stands in the checkout's root.
_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - this file travels to devices and wants no more
if not os.path.isdir(os.path.join(_FOLDER, "runtimes")) and os.path.isdir(os.path.join(_FOLDER, "..", "runtimes")):  # noqa: PTH112, PTH118
    __path__.append(os.path.dirname(_FOLDER))  # noqa: PTH120

keep_quiet()


class _Export(ModuleType):
    """The room ``rsedge.export``, which answers calls as the function of that name does."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(_MODULE_OF["export"]), "export")(*args, **kwargs)  # noqa: B009


class _Front(ModuleType):
    """This package. A room and a function share a name: whoever imports the room finds it, and it can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "export" and isinstance(value, ModuleType):
            value.__class__ = _Export
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front


def __getattr__(name: str) -> Any:
    if name == "export":
        return import_module("." + name, __name__)
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
