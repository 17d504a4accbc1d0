"""Finding TensorRT: the classic ``tensorrt`` (Jetson, data centre) or ``tensorrt_rtx`` (RTX cards, GPU-free builds)."""

from __future__ import annotations

import importlib
from typing import Any

from rsedge.data.errors import MissingCapability

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
        if module == "tensorrt" and version_of(found) < LEAST:
            raise MissingCapability(f"TensorRT {found.__version__} is too old; 8.5 or newer is needed (JetPack 5.1)")
        return found
    raise MissingCapability(
        f"the Python module '{name or MODULES[0]}' is not installed. On Jetson it comes with JetPack: make the "
        "environment with `python3 -m venv --system-site-packages`; elsewhere: pip install 'rsedge[tensorrt]' (NVIDIA "
        "GPU) or 'rsedge[tensorrt-rtx]' (RTX card, or compile checks without a GPU)"
    )


def version_of(trt: Any) -> tuple[int, int]:
    """Major and minor version."""
    major, minor = str(trt.__version__).split(".")[:2]
    return int(major), int(minor)


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
