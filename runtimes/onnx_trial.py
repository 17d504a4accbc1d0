"""A first run of an ONNX file that somebody else made in a process of its own: ONNX Runtime's, and OpenVINO's reading of it.

What is wrong with the file for those who use it they say themselves.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import RsedgeError
from rsedge.runtimes.child import Contents
from rsedge.runtimes.onnxruntime.core import running
from rsedge.runtimes.onnxruntime.session import load_onnx
from rsedge.runtimes.rehearsal import RUN_S, rehearse

_BYTES_PER_S = 1 << 20


def try_first(path: Path, shape: Sequence[int]) -> None:
    """Has a child run the file on float zeros of ``shape``; one that is not there is left to who opens it.

    Raises:
        RequestError: the child ended, or came to no end. MissingCapability: no process can be started.
    """
    if path.is_file():
        size, changed = path.stat().st_size, path.stat().st_mtime_ns
        question = [str(path), list(shape), size, changed]
        rehearse(path, f"{__name__}:answer", question, seconds=2 * RUN_S + size // _BYTES_PER_S)


def answer(question: Any, contents: Contents) -> bool:
    """The child's side."""
    path, shape = Path(question[0]), question[1]
    if importlib.util.find_spec("onnxruntime") is not None:
        with contextlib.suppress(RsedgeError), running(path):
            session = load_onnx(path)
            session.run(None, {entry.name: np.zeros(shape, np.float32) for entry in session.get_inputs()})
    if importlib.util.find_spec("openvino") is not None:
        from rsedge.runtimes.openvino.core import compile_model, read_model, settings, shared_core

        with contextlib.suppress(RsedgeError):
            model = read_model(shared_core(), path)
            compile_model(shared_core(), model, path, "CPU", settings("CPU", "f32", 1, "latency"))
    return True
