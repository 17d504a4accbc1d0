"""A first run of a LiteRT model in a process of its own: LiteRT verifies a flatbuffer, but not all that is in it.

Of models that were damaged where no weights lie, some one in 250 ended the process or never came to an end (2.3.0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.runtimes.child import Contents
from rsedge.runtimes.litert.core import dtype_of, open_litert, running
from rsedge.runtimes.rehearsal import rehearse


def try_first(path: Path, content: bytes) -> None:
    """Opens a model and runs it once, on zeros, in a child that stays for the next ones.

    Raises:
        RequestError: LiteRT refuses it, or the child ended or took too long. MissingCapability: LiteRT is not installed, or no
            process can be started.
    """
    rehearse(path, f"{__name__}:answer", str(path), content, keep=True)


def answer(question: Any, contents: Contents) -> bool:
    """The child's side: runs the model that follows its name."""
    path = Path(question)
    opened = open_litert(path, content=contents(), threads=1)
    with running(path):
        for entry in opened.inputs.values():
            zeros = np.zeros([max(1, int(size)) for size in entry["shape"]], dtype_of(entry, path))
            opened.interpreter.set_tensor(entry["index"], zeros)
        opened.interpreter.invoke()
        for entry in opened.outputs.values():
            opened.interpreter.get_tensor(entry["index"])
    return True
