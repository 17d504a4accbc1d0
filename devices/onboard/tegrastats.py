"""NVIDIA's ``tegrastats``: read where the power monitor's own files are not readable (containers, old releases).

A line of JetPack 5 and 6 names rails as ``VDD_IN 4536mW/4536mW`` (now/mean), JetPack 4 as ``POM_5V_IN 2532/2532``; clocks
stand as ``GR3D_FREQ 61%@[1020]`` or ``GR3D_FREQ 61%@1020``, temperatures as ``gpu@47.5C``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*[A-Z0-9])\s+(\d+)(mW)?/(\d+)(?:mW)?(?=\s|$)")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
_GPU = re.compile(r"\bGR3D_FREQ \d+%@\[?(\d+)")
_CPUS = re.compile(r"\bCPU \[([^\]]*)\]")
_NOT_RAILS = ("RAM", "SWAP", "IRAM", "NC")
INTERVAL_MS = 250


def parse(line: str) -> dict[str, dict[str, float]]:
    """One line as ``clocks_mhz``, ``temperatures_c`` and ``power_w``, each by name; what the line lacks is left out."""
    found: dict[str, dict[str, float]] = {"clocks_mhz": {}, "temperatures_c": {}, "power_w": {}}
    for name, now, _, _ in _RAIL.findall(line):
        if name not in _NOT_RAILS:
            found["power_w"][name] = int(now) / 1e3
    for name, value in _TEMPERATURE.findall(line):
        if float(value) > -200:  # a sensor that is off says -256
            found["temperatures_c"][name] = float(value)
    gpu = _GPU.search(line)
    if gpu:
        found["clocks_mhz"]["gpu"] = float(gpu.group(1))
    cpus = _CPUS.search(line)
    clocks = [float(c) for c in re.findall(r"%@(\d+)", cpus.group(1))] if cpus else []
    if clocks:
        found["clocks_mhz"]["cpu"] = sum(clocks) / len(clocks)
    return {kind: values for kind, values in found.items() if values}


class Tegrastats:
    """A running ``tegrastats``; :meth:`read` parses the last whole line it wrote."""

    def __init__(self) -> None:
        self._output = tempfile.NamedTemporaryFile(prefix="rsedge-tegrastats-")  # noqa: SIM115 (open until close())
        self._process = subprocess.Popen(
            ["tegrastats", "--interval", str(INTERVAL_MS)], stdout=self._output, stderr=subprocess.DEVNULL
        )

    @staticmethod
    def present() -> bool:
        return shutil.which("tegrastats") is not None

    def read(self) -> dict[str, dict[str, float]]:
        with Path(self._output.name).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 8192))
            lines = stream.read().decode(errors="replace").split("\n")[:-1]
        return parse(lines[-1]) if lines else {}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.close()


def power_mode(run: Any = subprocess.run) -> str | None:
    """The Jetson's power mode as ``nvpmodel -q`` names it, None elsewhere."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        done = run([program, "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_power_mode(done.stdout.decode(errors="replace"))


def parse_power_mode(output: str) -> str | None:
    """The name in ``NV Power Mode: 15W``."""
    match = re.search(r"NV Power Mode:\s*(\S+)", output)
    return match.group(1) if match else None
