"""What the processor says of itself: name, cores, clock, caches and instruction flags, from /proc and /sys alone."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def processor(root: Path = Path("/")) -> dict[str, Any]:
    """Fields of :class:`rsedge.devices.profiles.cpu.CpuInfo`, but ``flags`` as /proc/cpuinfo has them; ``mhz`` is the highest clock
    where the kernel tells, else the one now, None where neither is known."""
    blocks = _blocks(root / "proc/cpuinfo")
    first = blocks[0] if blocks else {}
    threads = os.cpu_count() or 1
    return {
        "model": first.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len({(b["physical id"], b["core id"]) for b in blocks if "core id" in b and "physical id" in b})
        or threads,
        "threads": threads,
        "usable_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads,
        "mhz": _mhz(root, first),
        "flags": sorted((first.get("flags") or first.get("features") or "").split()),
        "caches": _caches(root),
        "memory_bytes": _memory_bytes(root),
    }


def _blocks(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    found = []
    for block in path.read_text(errors="replace").split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        fields = {key.strip().lower(): value.strip() for key, value in pairs}
        if "processor" in fields or "flags" in fields or "features" in fields:
            found.append(fields)
    return found


def _mhz(root: Path, first: dict[str, str]) -> float | None:
    top = root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"
    if top.exists():
        return int(top.read_text()) / 1e3
    return float(first["cpu mhz"]) if "cpu mhz" in first else None


def _caches(root: Path) -> dict[str, str]:
    found = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (folder / "level", folder / "type", folder / "size")
        if level.exists() and kind.exists() and size.exists() and kind.read_text().strip() != "Instruction":
            found[f"L{level.read_text().strip()}"] = size.read_text().strip()
    return found


def _memory_bytes(root: Path) -> int | None:
    path = root / "proc/meminfo"
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemTotal:")), None)
