"""Energy and throttling of this machine while it does something else: sensors read from a thread of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.devices.onboard.sensors import Sensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S = 1.0


@contextlib.contextmanager
def metered(root: Path = Path("/")) -> Iterator[Callable[[], dict[str, Any]]]:
    """Gives what says, when it is asked, what went on since the block began.

    ``energy``: ``joules``, ``watts`` (mean) and ``covers`` (which rails), all of the machine, whoever used it; None where no
    rail or counter can be read. ``throttled``: what shows that the machine held itself back, in words.
    """
    ended, began = threading.Event(), time.perf_counter()
    with contextlib.closing(Sensors(root)) as sensors:

        def read() -> None:
            while not ended.wait(EVERY_S):
                sensors.sample()

        def since() -> dict[str, Any]:
            _end(ended, thread)
            sensors.sample()
            found, seconds = sensors.watts(), time.perf_counter() - began
            energy = None
            if found is not None:
                energy = {"joules": round(found[0] * seconds, 3), "watts": round(found[0], 3), "covers": found[1]}
            return {"energy": energy, "throttled": sensors.throttle_reasons()}

        sensors.sample()
        thread = threading.Thread(target=read, name="rsedge-meter", daemon=True)
        thread.start()
        try:
            yield since
        finally:
            _end(ended, thread)


def _end(ended: threading.Event, thread: threading.Thread) -> None:
    ended.set()
    thread.join()
