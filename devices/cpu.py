"""What this machine's processor is and can do: name, cores, clock, caches and the instruction sets that matter here."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

# Flag in /proc/cpuinfo -> the name shown. Order is from weak to strong.
ISA_FLAGS: dict[str, str] = {
    "sse4_2": "sse4.2",
    "avx": "avx",
    "fma": "fma",
    "avx2": "avx2",
    "avx_vnni": "avx-vnni",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx512_bf16": "avx512-bf16",
    "avx512_fp16": "avx512-fp16",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "asimd": "neon",
    "asimdhp": "neon-fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "neon-bf16",
    "sve": "sve",
    "sve2": "sve2",
}


class CpuInfo(BaseModel):
    """The processor as the operating system describes it; ``mhz`` is the current clock, None where unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    architecture: str
    cores: int
    threads: int
    usable_threads: int
    mhz: float | None
    isa: tuple[str, ...]
    caches: dict[str, str]

    def has(self, *names: str) -> bool:
        """True where any of the instruction sets is there."""
        return any(n in self.isa for n in names)

    @property
    def flops_per_cycle(self) -> dict[str, float]:
        """Dense operations (2 per multiply-add) one core does in a cycle, by precision; from vector width and ports.

        Two fused multiply-add ports are assumed. Where there is no int8 dot product, an int8 multiply-add takes
        three instructions.
        """
        f32 = 64.0 if self.has("avx512") else 32.0 if self.has("avx2") else 8.0
        if self.has("neon"):
            f32 = 16.0
        dot = self.has("avx512-vnni", "avx-vnni", "dotprod")
        peaks = {"f32": f32, "int8": f32 * (4.0 if dot else 4.0 / 3.0)}
        if self.has("avx512-bf16"):
            peaks["bf16"] = 2 * f32
        if self.has("amx-int8"):
            peaks["int8"] = 2048.0
        if self.has("amx-bf16"):
            peaks["bf16"] = 1024.0
        return peaks


@functools.lru_cache(maxsize=1)
def detect_cpu() -> CpuInfo:
    """Reads the processor of this machine from /proc, /sys and the operating system."""
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    return CpuInfo(
        model=fields.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        threads=os.cpu_count() or 1,
        usable_threads=_usable_threads(),
        mhz=_mhz(fields),
        isa=tuple(shown for flag, shown in ISA_FLAGS.items() if flag in flags),
        caches=_caches(),
    )


def _usable_threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, value in pairs}


def _mhz(fields: dict[str, str]) -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        frequency = None
    if frequency and (frequency.max or frequency.current):
        return float(frequency.max or frequency.current)
    return float(fields["cpu mhz"]) if "cpu mhz" in fields else None


def _caches() -> dict[str, str]:
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (folder / "level", folder / "type", folder / "size")
        if level.exists() and kind.exists() and size.exists() and kind.read_text().strip() != "Instruction":
            found[f"L{level.read_text().strip()}"] = size.read_text().strip()
    return found
