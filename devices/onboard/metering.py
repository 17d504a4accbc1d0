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

    ``energy``: ``joules``, ``watts`` (mean) and ``covers`` (which rails), all of the machine, whoever used it, and ``processor_s``,
    the processor seconds of this process over the same stretch; None where no rail or counter can be read. ``throttled``: what
    shows that the machine held itself back, in words. ``throttle_counts``: counters that grew meanwhile, name -> by how much.
    """
    ended, began, worked = threading.Event(), time.perf_counter(), time.process_time()
    with contextlib.closing(Sensors(root)) as sensors:

        def read() -> None:
            while not ended.wait(EVERY_S):
                sensors.sample()

        def since() -> dict[str, Any]:
            _end(ended, thread)
            sensors.sample()
            found, seconds = sensors.watts(), time.perf_counter() - began
            energy: dict[str, Any] | None = None
            if found is not None:
                energy = {"joules": round(found[0] * seconds, 3), "watts": round(found[0], 3), "covers": found[1]}
                energy["processor_s"] = round(time.process_time() - worked, 3)
            counts = sensors.throttle_counts()
            return {"energy": energy, "throttled": sensors.throttle_reasons(), "throttle_counts": counts}

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
