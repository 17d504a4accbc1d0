"""What figures were made on and with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "verdicts"))

import grid


def stamp() -> dict[str, object]:
    """Date, commit, processor, instruction sets and tools."""
    from rsedge.cache.stage import tool_versions
    from rsedge.devices.profiles.cpu import detect_cpu

    cpu, tools = detect_cpu(), (*grid.VERSIONS, "torch-pruning")
    versions = {name: version for name, version in tool_versions().items() if name in tools}
    return {"date": grid.today(), "commit": grid.commit(), "cpu": cpu.model, "instruction_sets": list(cpu.isa),
            "cores": os.cpu_count(), "versions": versions}  # fmt: skip
