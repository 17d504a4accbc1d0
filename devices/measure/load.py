"""What else a machine did while something was timed, and from when on no clock, or only that of the processor, is to be trusted."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsedge.data.record import Record

Clock = Literal["processor time", "wall clock"]
SPINNING = frozenset({"onnxruntime"})
"""Runtimes whose threads, if there are several, burn processor time while they wait: with two of ONNX Runtime a run took twice the
processor time of one, and 20 ms more after it."""
SPUN_OUT_S = 0.05
"""Seconds after which such threads sleep."""
TOO_STOLEN = 0.25
"""Share of the time that the hypervisor gave to others, above which no clock of ours is trusted."""
TOO_BUSY = 0.25
"""Other processes' share of the processors, above which the wall clock decides nothing."""


class Load(Record):
    """What else the machine did during the turns (shares of all its processors); None where it does not say."""

    steal: float | None = None
    others: float | None = None
    load_average: float | None = None

    def words(self) -> str:
        """What a reader should know of it, in words."""
        parts = [] if self.others is None else [f"other processes took {self.others:.0%} of the processors"]
        parts += [] if not self.steal else [f"{self.steal:.0%} was stolen by the host"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Ticks:
    """Processor time since boot (s): of the whole machine, stolen, and of this process; None where /proc/stat cannot be read."""

    total: float | None
    idle: float
    steal: float
    own: float

    @classmethod
    def now(cls) -> Ticks:
        own = time.process_time()
        try:
            first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
            user, nice, system, idle, wait, irq, soft, steal = (
                int(v) / os.sysconf("SC_CLK_TCK") for v in first.split()[1:9]
            )
        except (OSError, ValueError):  # not there, or masked
            return cls(None, 0.0, 0.0, own)
        return cls(user + nice + system + idle + wait + irq + soft + steal, idle + wait, steal, own)

    def since(self, before: Ticks) -> Load:
        average = os.getloadavg()[0]
        if self.total is None or before.total is None or not self.total > before.total:
            return Load(load_average=average)
        total = self.total - before.total
        steal = (self.steal - before.steal) / total
        busy = 1 - (self.idle - before.idle) / total - steal
        others = busy - (self.own - before.own) / total
        return Load(steal=max(0.0, steal), others=min(1.0, max(0.0, others)), load_average=average)
