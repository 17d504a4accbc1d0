"""What figures of one machine depend on: they say nothing of the next, though the run folder moves there."""

from __future__ import annotations

import os
from typing import Any

from rsedge.devices.profiles.cpu import detect_cpu

CAPS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""What holds libraries to fewer instruction sets than the processor has."""


def machine() -> dict[str, Any]:
    """This processor, its instruction sets, and what libraries may use of them."""
    cpu = detect_cpu()
    return {"cpu": cpu.model, "isa": list(cpu.isa), "caps": {name: os.environ.get(name) for name in CAPS}}
