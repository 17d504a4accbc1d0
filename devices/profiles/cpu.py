"""What this machine's processor is and can do: name, cores, clock, caches and the instruction sets that matter here."""

from __future__ import annotations

import functools
from typing import Any

from rsedge.data.record import Record
from rsedge.devices.onboard.processor import processor

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


class CpuInfo(Record):
    """The processor as the operating system describes it; ``mhz`` is its highest clock, or the one now, None where unknown."""

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
    """The processor of this machine."""
    return cpu_info(processor())


def cpu_info(facts: dict[str, Any]) -> CpuInfo:
    """A processor as :func:`rsedge.devices.onboard.processor.processor` describes it, here or on a remote device."""
    flags = set(facts["flags"])
    fields = {name: facts[name] for name in CpuInfo.model_fields if name != "isa"}
    return CpuInfo(isa=tuple(shown for flag, shown in ISA_FLAGS.items() if flag in flags), **fields)
