"""A process beside ours for what may end its own: libraries that read what others made. It dies or hangs alone, and we say so.

The child is this Python with this process's ``sys.path``, in a session of its own (no terminal's signals), without core dumps,
and the first to go where memory runs out. It ends when this process lets go of it or ends, however that is and whatever library
it is in. Both sides talk in JSON, never in pickles.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rsedge.data import errors
from rsedge.data.errors import MissingCapability, RsedgeError

MAX_ANSWER = 64 << 20
START_S = 60
_BEGIN = "import sys; sys.path[:] = sys.argv[4:]; from rsedge.runtimes.child import begin; begin(*sys.argv[1:4])"

Contents = Callable[[], bytes]
"""Gives the next content that came with a question."""


class ChildEnded(Exception):
    """The child ended before it had answered; the text says how."""


class Child:
    """A process that answers questions by ``entry`` (``module:function``), a function of (question, :data:`Contents`).

    Raises:
        MissingCapability: no process can be started.
    """

    def __init__(self, entry: str) -> None:
        (ours, theirs), (mine, bond) = socket.socketpair(), socket.socketpair()
        with theirs, bond:
            places = [theirs.fileno(), bond.fileno()]
            command = [sys.executable, "-c", _BEGIN, entry, *map(str, places), *sys.path]
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=places, start_new_session=True
                )  # fmt: skip
            except OSError as error:
                ours.close()
                mine.close()
                raise MissingCapability(f"{sys.executable}: cannot be started once more ({error.strerror})") from error
        self._line = Connection(ours.detach())
        self.close = weakref.finalize(self, _end, self._process, self._line, mine)

    def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
        """The answer to a question (JSON) and the contents that belong to it, given within ``seconds``.

        Raises:
            RsedgeError: our own, which the child met. ChildEnded: it ended by a fault, or by its time.
        """
        try:
            self._line.send_bytes(json.dumps([seconds, question]).encode())
            for content in contents:
                self._line.send_bytes(content)
            answer = json.loads(self._line.recv_bytes(MAX_ANSWER))
        except (OSError, EOFError) as error:
            raise ChildEnded(self._how(seconds)) from error
        except BaseException:  # an answer that comes later would be taken for the next one's
            self.close()
            raise
        if "kind" in answer:
            raise getattr(errors, answer["kind"])(answer["error"])
        return answer["answer"]

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self.close.alive and self._process.poll() is None

    def _how(self, seconds: int) -> str:
        self._line.close()
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        return (
            f"gave no answer in {seconds} s"
            if code == -signal.SIGALRM
            else f"was ended by {signal.Signals(-code).name}"
        )


def _end(process: subprocess.Popen[bytes], line: Connection, bond: socket.socket) -> None:
    process.kill()
    process.wait()
    line.close()
    bond.close()


def begin(entry: str, handle: str, bond: str) -> None:
    """The child's side: answers until nobody is left who asks. ``bond`` is a socket at whose other end nothing is written: it is
    closed with the process that asks, and then ends this one.
    """
    signal.alarm(START_S)
    _end_with(int(bond))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    os.set_inheritable(int(handle), False)
    module, _, name = entry.partition(":")
    answer = getattr(importlib.import_module(module), name)
    line = Connection(int(handle))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            signal.alarm(0)
            seconds, question = json.loads(line.recv_bytes())
            signal.alarm(seconds)  # its default action ends us inside a library, too
            line.send_bytes(json.dumps(_answered(answer, question, line.recv_bytes)).encode())


def _end_with(bond: int) -> None:
    os.set_inheritable(bond, False)
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends us, inside a library too
    fcntl.fcntl(bond, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(bond, fcntl.F_SETFL, fcntl.fcntl(bond, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([bond], [], [], 0)[0]:  # before we listened
        raise SystemExit(0)


def _answered(answer: Callable[[Any, Contents], Any], question: Any, contents: Contents) -> dict[str, Any]:
    try:
        return {"answer": answer(question, contents)}
    except RsedgeError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except MemoryError:
        return {
            "error": "a model takes more memory than there is; use a machine with more",
            "kind": MissingCapability.__name__,
        }
