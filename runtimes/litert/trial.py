"""A first run of a model in a process of its own: LiteRT verifies a flatbuffer, but not all that is in it.

Of models that were damaged where no weights lie, some one in 250 ended the process or never came to an end (2.3.0); here they
end a child's. The child stays for the next models, so that a program waits for it once.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.runtimes.child import Child, ChildEnded, Contents
from rsedge.runtimes.litert.core import dtype_of, open_litert, running

RUN_S = 60
_lock = threading.Lock()
_known: set[str] = set()
"""SHA-256 of what ran."""
_children: list[Child] = []


def try_first(path: Any, content: bytes) -> None:
    """Opens a model and runs it once, on zeros, in a child; what ran there does so again without one.

    Raises:
        RequestError: LiteRT refuses it, or it ended the child or took longer than :data:`RUN_S`.
        MissingCapability: LiteRT is not installed, or no process can be started.
    """
    digest = hashlib.sha256(content).hexdigest()
    with _lock:
        if digest in _known:
            return
        if not _children:
            _children.append(Child(f"{__name__}:answer"))
        try:
            _children[0].ask(RUN_S, str(path), content)
        except ChildEnded as error:
            _children.pop().close()
            raise RequestError(
                f"{path}: LiteRT {error} as it ran this model for the first time, in a process of its own; the file is damaged, "
                "copy it again"
            ) from error
        _known.add(digest)


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
