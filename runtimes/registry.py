"""The runtimes that there are: those of rsedge, those of installed packages, and what a program registers.

Each is a :class:`~rsedge.runtimes.backend.RuntimeBackend`, imported when it is first asked for, so that a device needs none but its
own. A package of somebody else's adds one by an entry point of the group ``rsedge.runtimes``, whose name is the runtime's::

    [project.entry-points."rsedge.runtimes"]
    mine = "my_package.runtime:BACKEND"
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator

from rsedge.data.document_check import nearest
from rsedge.data.entry_points import MEND, entry_words, loaded
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.backend import RuntimeBackend

GROUP = "rsedge.runtimes"
_BUILT_IN: dict[str, tuple[str, Callable[[], Any]]] = {
    "openvino": ("openvino", lambda: import_module("rsedge.runtimes.openvino.backend")),
    "tensorrt": ("tensorrt", lambda: import_module("rsedge.runtimes.tensorrt.backend")),
    "onnxruntime": ("onnxruntime", lambda: import_module("rsedge.runtimes.onnxruntime.backend")),
    "litert": ("litert", lambda: import_module("rsedge.runtimes.litert.backend")),
    "myriad": ("openvino", lambda: import_module("rsedge.runtimes.myriad.backend")),
}
"""Backend -> runtime that it is for, and the module that holds it as ``BACKEND``, in full, so that a stage's key covers it."""
_registered: dict[str, RuntimeBackend] = {}


def register_backend(backend: RuntimeBackend) -> RuntimeBackend:
    """Adds a runtime for this process, or a backend for some devices of one that there is.

    Raises:
        RequestError: its name is taken, or no target could be called so.
    """
    for word in (backend.name, backend.runtime):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise RequestError(f"runtime '{word}': names hold small letters, digits and '_', and begin with a letter")
    if backend.name in backend_names():
        raise RequestError(f"runtime '{backend.name}' is there already; give yours another name")
    _registered[backend.name] = backend
    return backend


def unregister_backend(name: str) -> None:
    """Takes away what :func:`register_backend` added."""
    _registered.pop(name, None)


def backend_names() -> tuple[str, ...]:
    """Names of all backends; none is imported."""
    return tuple(dict.fromkeys((*_BUILT_IN, *_entry_points(), *_registered)))


def known_elsewhere(name: str) -> bool:
    """Whether another process of this environment knows a backend: it is rsedge's or an installed package's."""
    return name in _BUILT_IN or name in _entry_points()


def runtime_names() -> tuple[str, ...]:
    """What the first part of a target's name may be; none is imported."""
    own = [runtime for runtime, _ in _BUILT_IN.values()]
    return tuple(dict.fromkeys((*own, *_entry_points(), *(b.runtime for b in _registered.values()))))


def backend(name: str) -> RuntimeBackend:
    """A backend by its name.

    Raises:
        RequestError: there is none; says the nearest and all that there are.
        MissingCapability: the package that brings it is broken.
    """
    if name in _BUILT_IN:
        return _built_in(name)
    if name in _registered:
        return _registered[name]
    if name in _entry_points():
        return _from_entry_point(name)
    raise RequestError(_unknown(name))


def backends() -> tuple[RuntimeBackend, ...]:
    """All of them but those of packages that are broken (:func:`broken`), which harm no others."""
    gone = broken()
    return tuple(backend(name) for name in backend_names() if name not in gone)


def broken() -> dict[str, str]:
    """Backends whose package cannot be used, and why; for ``rsedge doctor``."""
    found = {}
    for name in _entry_points():
        try:
            backend(name)
        except MissingCapability as error:
            found[name] = str(error)
    return found


def backend_for(runtime: str, device: str = "cpu") -> RuntimeBackend:
    """What runs targets of a runtime on a device, by the target's name of it (``myriad-x``) or the runtime's (``MYRIAD``).

    Raises:
        RequestError: no such runtime, or none of its backends takes the device. MissingCapability: as :func:`backend`.
    """
    if runtime not in runtime_names():
        raise RequestError(_unknown(runtime))
    special = [n for n, (own, _) in _BUILT_IN.items() if own == runtime != n]
    special += [n for n, made in _registered.items() if made.runtime == runtime != n]
    found = [backend(name) for name in (*special, *([runtime] if runtime in backend_names() else []))]
    for one in found:
        if one.takes(device):
            return one
    raise RequestError(f"{runtime} does not run on '{device}'")


def _unknown(name: str) -> str:
    known = runtime_names()
    return f"unknown runtime '{name}'{nearest(name, known)}; choose one of {', '.join(known)}"


@functools.cache
def _built_in(name: str) -> RuntimeBackend:
    found: RuntimeBackend = _BUILT_IN[name][1]().BACKEND
    return found


@functools.cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Of installed packages, by name; those of rsedge cannot be taken over."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {point.name: point for point in found if point.name not in _BUILT_IN}


@functools.cache
def _from_entry_point(name: str) -> RuntimeBackend:
    point = _entry_points()[name]
    found, where = loaded("runtime", point), entry_words("runtime", point)
    made = found() if isinstance(found, type) and issubclass(found, RuntimeBackend) else found
    if not isinstance(made, RuntimeBackend) or made.name != name or made.runtime != name:
        raise MissingCapability(f"{where}: {point.value} is no RuntimeBackend of that name; {MEND}")
    return made


def _known(name: str) -> str:
    if name not in runtime_names():
        raise ValueError(
            f"'{name}' is no runtime here{nearest(name, runtime_names())}; known: {', '.join(runtime_names())}"
        )
    return name


RuntimeName = Annotated[str, AfterValidator(_known)]
"""The name of a runtime, checked where pydantic reads it."""
