"""What this process holds of memory while something runs."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

SAMPLE_S = 0.05


class MemoryWatch:
    """The most that this process holds while it is open, looked at every 50 ms.

    Attributes:
        peak: resident memory, bytes.
        own: of it what is no page of a file (bytes), which the kernel cannot take back; Linux alone tells it apart, elsewhere it
            is all of it.
    """

    def __init__(self) -> None:
        self.peak = self.own = 0
        self._process, self._done = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rsedge-memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            found = self._process.memory_info()
            self.peak = max(self.peak, found.rss)
            self.own = max(self.own, found.rss - getattr(found, "shared", 0))
            if self._done.wait(SAMPLE_S):
                return
