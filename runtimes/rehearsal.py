"""First runs in a process of their own: of models that nobody vouches for, and that may end the runtime that takes them.

What ran there does so again without one. So each is rehearsed once in a process, by the bytes that it is of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.child import Child, ChildEnded

RUN_S = 60
_lock = threading.Lock()
_known: set[str] = set()
"""SHA-256 of what ran."""
_kept: dict[str, Child] = {}


def rehearse(
    what: object, entry: str, question: Any, *contents: bytes, seconds: int = RUN_S, keep: bool = False
) -> None:
    """Has a child answer a question (see :class:`rsedge.runtimes.child.Child`), where none has yet.

    Args:
        what: the model or bundle, for messages.
        seconds: after so long it hangs.
        keep: the child waits for the next ones, which then need not wait for one; else it goes, and its memory with it.

    Raises:
        RequestError: the child ended, or came to no end. RsedgeError: what it met. MissingCapability: no process can be started.
    """
    digest = _digest(entry, question, contents)
    with _lock:
        if digest in _known:
            return
        child = _kept.pop(entry, None) or Child(entry)
        try:
            _asked(what, child, seconds, question, contents)
            _known.add(digest)
        finally:
            if keep and child.alive:
                _kept[entry] = child
            else:
                child.close()


def ask_once(what: object, entry: str, question: Any, seconds: int = RUN_S) -> Any:
    """The answer of a child that is asked nothing else.

    Raises:
        RequestError, MissingCapability: as :func:`rehearse`.
    """
    with contextlib.closing(Child(entry)) as child:
        return _asked(what, child, seconds, question, ())


def _asked(what: object, child: Child, seconds: int, question: Any, contents: tuple[bytes, ...]) -> Any:
    try:
        return child.ask(seconds, question, *contents)
    except ChildEnded as error:
        raise RequestError(
            f"{what}: the model ends its runtime: a process of its own, in which it ran for the first time, {error}; it is not "
            "opened. It is damaged, or made to do so: get it again from those who made it"
        ) from error


def _digest(entry: str, question: Any, contents: tuple[bytes, ...]) -> str:
    found = hashlib.sha256(json.dumps([entry, question]).encode())
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()
