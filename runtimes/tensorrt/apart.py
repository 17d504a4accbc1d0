"""TensorRT's parser and builder in a process of their own: they read what others made, and may end the process they run in.

What the builder took, of the GPU too, is free again as that process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.checked import CheckedModel
from rsedge.runtimes.child import Child, ChildEnded, Contents
from rsedge.runtimes.tensorrt.compile import BuildOptions, Compiled, compile_onnx
from rsedge.runtimes.tensorrt.dla import Placement
from rsedge.runtimes.tensorrt.module import load_tensorrt

BUILD_S = 7200
"""Networks of hundreds of layers take a Jetson the better part of an hour."""
_ENGINE, _TIMING = "engine", "timing"


def compile_apart(
    model: CheckedModel,
    options: BuildOptions,
    module: str,
    sm: str | None = None,
    timing: bytes | None = None,
    seconds: int = BUILD_S,
) -> Compiled:
    """As :func:`rsedge.runtimes.tensorrt.compile.compile_onnx`, in a child that is given the bytes of ``model``.

    Args:
        module: name of the TensorRT module.
        sm: GPU generation to compile for, by name (``tensorrt_rtx`` only); None: the GPU of this machine.
        seconds: after so long it hangs.

    Raises:
        RequestError: also where the child ended, or came to no end. MissingCapability: also where no process can be started.
    """
    with TemporaryFolder() as folder, contextlib.closing(Child(f"{__name__}:answer")) as child:
        question = {
            "path": str(model),
            "folder": str(folder),
            "options": dataclasses.asdict(options),
            "module": module,
            "sm": sm,
            "timed": timing is not None,
        }
        try:
            placed = child.ask(seconds, question, model.content(), timing or b"")
        except ChildEnded as error:
            raise RequestError(
                f"{model}: {module} does not survive it: the process that builds the engine {error}; nothing was kept. Either the "
                "model is damaged, or made to do so: get it again from those who made it; or memory ran out: free some"
            ) from error
        engine, measured = ((folder / name).read_bytes() for name in (_ENGINE, _TIMING))
    return Compiled(engine, measured, [Placement(**one) for one in placed])


def answer(question: dict[str, Any], contents: Contents) -> list[dict[str, str]]:
    """The child's side: writes engine and kernel times into the folder named, tells where layers run."""
    content, timing = contents(), contents()
    path, folder = Path(question["path"]), Path(question["folder"])
    os.chdir(folder)  # weights in other files, should the parser look for any, are none of this device's
    trt = load_tensorrt(question["module"])
    capability = None if question["sm"] is None else getattr(trt.ComputeCapability, question["sm"])
    options = BuildOptions(**question["options"])
    made = compile_onnx(
        trt, CheckedModel(path, lambda _: content), options, capability, timing if question["timed"] else None
    )
    (folder / _ENGINE).write_bytes(made.engine)
    (folder / _TIMING).write_bytes(made.timing)
    return [dataclasses.asdict(one) for one in made.placement]
