"""Opening LiteRT: the interpreter of ``ai-edge-litert`` with XNNPACK, from bytes in memory; its errors are ours.

The interpreter verifies the flatbuffer before it reads it, and refuses indices out of range as it builds the graph. Weights outside
the flatbuffer, which it does not verify, are refused here; for the rest see :mod:`rsedge.runtimes.litert.trial`.

Travels with the runner: Python 3.8, NumPy, the device's own LiteRT and the error types.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.checked import CheckedModel, Model
from rsedge.runtimes.cores import threads_used
from rsedge.runtimes.litert.flatbuffer import is_litert, metadata, outside_data

DEVICES = ("CPU",)
_DTYPES = ("uint8", "int16", "uint16", "int32", "float32")
_NOTE = b"INFO: Created TensorFlow Lite XNNPACK"
_DAMAGED = "the file is truncated, altered or no LiteRT model; copy it again"


@dataclass
class Opened:
    """A model ready to run: the interpreter, its inputs and outputs by name with their tensors, and the file's metadata."""

    interpreter: Any
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    metadata: dict[str, bytes]


def litert_version() -> str:
    """Release of ``ai-edge-litert``.

    Raises:
        ImportError: it is not installed.
    """
    import importlib.metadata

    return importlib.metadata.version("ai-edge-litert")


def open_litert(path: Model, device: str = "CPU", threads: int | None = None, content: bytes | None = None) -> Opened:
    """Opens a model with XNNPACK on the CPU.

    Args:
        threads: CPU threads; None: all cores that this process may use.
        content: the model's bytes, where they are read already.

    Raises:
        RequestError: another device, or a file that is truncated, altered or no LiteRT model.
        MissingCapability: LiteRT is not installed, or the model needs an operation that it does not have.
    """
    if device.upper() not in DEVICES:
        raise RequestError(f"{path}: LiteRT device '{device}' is unknown; choose {', '.join(DEVICES)}")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise missing_extra("ai_edge_litert", "litert", f"{path}: running it") from error
    content = read_litert(path) if content is None else content
    try:
        with _notes_held():
            interpreter = Interpreter(model_content=content, num_threads=threads_used(threads))
            if outside_data(content):
                raise RequestError(
                    f"{path}: keeps weights outside its flatbuffer, which nothing checks; write them into the model"
                )
            interpreter.allocate_tensors()
        inputs, outputs = _ends(interpreter, path)
        return Opened(interpreter, inputs, outputs, metadata(content))
    except (ValueError, RuntimeError, UnicodeError) as error:
        raise RequestError(f"{path}: LiteRT cannot load this model; {_DAMAGED}: {_line(error)}") from error
    except MemoryError as error:
        raise MissingCapability(f"{path}: takes more memory than there is") from error


@contextlib.contextmanager
def _notes_held() -> Iterator[None]:
    """Keeps LiteRT's note of each XNNPACK that it makes off standard error, where it writes past Python; all else goes on there."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not line.startswith(_NOTE)))


def read_litert(path: Model) -> bytes:
    """A model's bytes.

    Raises:
        RequestError: they cannot be read, are not what was checked, or call themselves something else.
    """
    try:
        content = path.content() if isinstance(path, CheckedModel) else path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_litert(content):
        raise RequestError(f"{path}: LiteRT cannot load this model; {_DAMAGED}")
    return content


def _ends(interpreter: Any, path: Model) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Inputs and outputs of the model's one signature, by name.

    Raises:
        RequestError: it has none, or several.
    """
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise RequestError(f"{path}: has {len(signatures)} signatures, not the one of an rsedge graph")
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return runner.get_input_details(), runner.get_output_details()


def dtype_of(details: dict[str, Any], path: Model) -> np.dtype[Any]:
    """NumPy dtype of an input.

    Raises:
        RequestError: it holds no digital numbers.
    """
    dtype = np.dtype(details["dtype"])
    if dtype.name not in _DTYPES:
        raise RequestError(f"{path}: input '{details['name']}' has type {dtype}, which holds no digital numbers")
    return dtype


@contextlib.contextmanager
def running(path: Model) -> Iterator[None]:
    """Turns LiteRT's own errors into ours as a model runs.

    Raises:
        RequestError: holds what it said.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise RequestError(
            f"{path}: LiteRT fails as it runs this model ({_line(error)}); copy it again, or have it made anew"
        ) from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
