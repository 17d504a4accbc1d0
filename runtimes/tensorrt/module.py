"""Finding TensorRT: the classic ``tensorrt`` (Jetson, data centre) or ``tensorrt_rtx`` (RTX cards, GPU-free builds).

One code path serves 8.5 to 11.x and TensorRT for RTX. They differ in what decides a layer's precision: builder flags before
10, the graph's own types from 10 on (11 and RTX know nothing else), and in DLA, which before 11 needs the flags.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability

if TYPE_CHECKING:
    import tensorrt as api

MODULES = ("tensorrt", "tensorrt_rtx")
LEAST = (8, 5)

# TensorRT's names of tensor types, as NumPy's.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def load_tensorrt(name: str | None = None) -> Any:
    """The TensorRT module: the named one, or the first that is installed.

    Raises:
        MissingCapability: none is, or it is older than 8.5; says how to get one.
    """
    for module in MODULES if name is None else (name,):
        try:
            found = importlib.import_module(module)
        except (ImportError, OSError):
            continue
        if not hasattr(found, "Builder"):  # a folder of type stubs, or a half-removed package
            continue
        if module == "tensorrt" and version_of(found) < LEAST:
            raise MissingCapability(f"TensorRT {found.__version__} is too old; 8.5 or newer is needed (JetPack 5.1)")
        return found
    raise MissingCapability(
        f"the Python module '{name or MODULES[0]}' is not installed. On Jetson it comes with JetPack: make the "
        "environment with `python3 -m venv --system-site-packages`; elsewhere: pip install 'rsedge[tensorrt]' (NVIDIA "
        "GPU) or 'rsedge[tensorrt-rtx]' (RTX card, or compile checks without a GPU)"
    )


def version_of(trt: Any) -> tuple[int, int]:
    """Major and minor version of a TensorRT module."""
    return version_pair(trt.__version__)


def version_pair(text: str) -> tuple[int, int]:
    """Major and minor of a version such as ``10.3.0``."""
    parts = text.split(".")
    return int(parts[0]), int(parts[1])


def mechanism(module: str, version: str, dla: bool = False) -> str:
    """What decides a layer's precision: ``builder_flags`` or ``strongly_typed``.

    DLA takes strongly typed networks only from 11 on (TensorRT 11.4.1 notes).
    """
    if module == "tensorrt_rtx":
        return "strongly_typed"
    return "strongly_typed" if version_pair(version)[0] >= (11 if dla else 10) else "builder_flags"


def builder_flag(trt: Any, name: str) -> api.BuilderFlag:
    """A builder flag by name.

    Raises:
        MissingCapability: this TensorRT has no such flag.
    """
    flag: api.BuilderFlag | None = trt.BuilderFlag.__members__.get(name)
    if flag is None:
        raise MissingCapability(f"{trt.__name__} {trt.__version__} has no builder flag {name}")
    return flag


def sizes(shape: api.Dims) -> tuple[int, ...]:
    """TensorRT's dimensions as plain numbers; -1 is dynamic."""
    return tuple(int(shape[i]) for i in range(len(shape)))


def make_logger(trt: Any) -> Any:
    """A TensorRT logger that keeps errors and warnings in ``messages`` instead of printing them."""

    class Collected(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.messages.append(message)

    return Collected()


def last_errors(logger: Any, count: int = 3) -> str:
    """The last few messages in one line."""
    return "; ".join(m.strip().splitlines()[0] for m in logger.messages[-count:] if m.strip()) or "no message"
