"""A sign of life on stderr while a command that prints JSON works: without it a long one looks like one that hangs."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

FIRST_S, EVERY_S = 2.0, 30.0
"""When the first line comes, and how long after each the next."""
SILENT = ("serve", "watch")
"""Commands that work until they are stopped, and say themselves what they do."""


@contextlib.contextmanager
def heartbeat(arguments: Sequence[str]) -> Iterator[None]:
    """Prints a line now and then while the block runs, where the command prints JSON."""
    if "--json" not in arguments or arguments[0] in SILENT:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(arguments[0], over, sys.stderr), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=1)


def _beat(command: str, over: threading.Event, stream: TextIO) -> None:
    began = time.monotonic()
    wait = FIRST_S
    while not over.wait(wait):
        wait = EVERY_S
        # A terminal that is gone ends nothing.
        with contextlib.suppress(OSError, ValueError):
            print(f"rsedge {command}: at work for {time.monotonic() - began:.0f} s{_doing()}", file=stream, flush=True)


def _doing() -> str:
    """What a run is at; the module is only there where one was begun."""
    progress = sys.modules.get("rsedge.progress")
    return f": {progress.Reporter.at}" if progress is not None and progress.Reporter.at else ""
