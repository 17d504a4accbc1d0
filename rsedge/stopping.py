"""SIGINT, SIGTERM and SIGHUP end a command alike: temporary files and child processes go, what was there stays whole."""

from __future__ import annotations

import _thread
import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 5.0
"""Whoever ends a command often sends two signals at once; a second one within this time does not disturb the clearing up."""
AGAIN_S = 0.05


class Stop:
    """The signal that asked for the end, once one has come."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._came = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """As shells tell it: 130, 143, 129."""
        assert self.signal is not None
        return 128 + self.signal

    def dropped(self) -> None:
        """A callback of compiled code, or a finalizer, drops errors, and has dropped the interruption: it comes again soon."""
        self._came = -math.inf
        again = threading.Timer(AGAIN_S, _thread.interrupt_main, [self.signal])
        again.daemon = True
        again.start()

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler.

        Raises:
            KeyboardInterrupt: in the main thread, wherever it is.
        """
        now = time.monotonic()
        if self.signal is not None and number != signal.SIGINT and now - self._came < GRACE_S:
            return
        self.signal, self._came = self.signal or signal.Signals(number), now
        raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Within the block each of :data:`SIGNALS` raises KeyboardInterrupt; one that is ignored (``nohup``) stays ignored."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread hears signals
        return
    before, tell = {s: signal.getsignal(s) for s in SIGNALS}, sys.unraisablehook

    def dropped(found: sys.UnraisableHookArgs) -> None:
        if stop and found.exc_type is KeyboardInterrupt:
            stop.dropped()
        else:
            tell(found)

    try:
        sys.unraisablehook = dropped
        for number in (s for s, handler in before.items() if handler != signal.SIG_IGN):
            signal.signal(number, stop.ask)
        yield stop
    finally:
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Within the block the first of :data:`SIGNALS` only asks for the end: the function that is given says so. Another one, later
    than :data:`GRACE_S`, ends it as outside the block."""
    came: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(came)
        return
    before = {s: signal.getsignal(s) for s in SIGNALS}

    def back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if came[-1] - came[0] > GRACE_S:
            back()
            signal.raise_signal(number)

    try:
        for number in (s for s, handler in before.items() if handler != signal.SIG_IGN):
            signal.signal(number, ask)
        yield lambda: bool(came)
    finally:
        back()
