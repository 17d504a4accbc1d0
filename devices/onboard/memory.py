"""Memory: what this process took at most, and how much of it a new process may take.

The peak is the kernel's high-water mark of resident memory (``VmHWM``), which starts anew with each program;
``getrusage`` is not used where that exists, since its maximum is inherited from the parent across fork and exec.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def high_water_bytes() -> int:
    """High-water mark of this process's resident memory (bytes)."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that a new process may take without swapping: what the kernel says, no more than the limits of this
    process's address space and of its control group (containers). None where the kernel does not tell."""
    found = [v for v in (_meminfo(root), _address_space(), _control_group(root)) if v is not None]
    return min(found) if found else None


def _meminfo(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")), None)


def _address_space() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _control_group(root: Path) -> int | None:
    """Limit less use of control group version 2, as a container sees its own."""
    folder = root / "sys/fs/cgroup"
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
