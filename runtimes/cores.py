"""How many processor cores a run may use. Travels with the remote runner: Python 3.8, standard library only."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def threads_used(threads: int | None) -> int:
    """The asked number of threads, no more than there are cores; None: all cores."""
    return min(threads, cpu_count()) if threads else cpu_count()
