"""What the device is and has, told before anything large is sent to it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

from rsedge.devices.onboard.memory import available_bytes
from rsedge.devices.onboard.processor import processor
from rsedge.devices.onboard.tegrastats import power_mode

RUNTIMES = ("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "litert")
MODULES = {"litert": "ai_edge_litert"}
"""What is imported, where it is not called as the runtime."""


def probe(folder: Path, runtime: str) -> dict[str, Any]:
    """Facts of this device: model, kernel, Python, NumPy, the runtime's version (None: not there, with the reason),
    free memory and disk (bytes), the processor, the load average, the wall clock (s since 1970) and the power mode."""
    module = _import(MODULES.get(runtime, runtime))
    numpy = _import("numpy")
    return {
        "model": _model(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "jetson": _first_line(Path("/etc/nv_tegra_release")),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "numpy": numpy["version"],
        "runtime": {"name": runtime, **module},
        "memory_available_bytes": available_bytes(),
        "disk_free_bytes": shutil.disk_usage(str(folder)).free,
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "wall_clock_s": time.time(),
        "power_mode": power_mode(),
    }


def _import(name: str) -> dict[str, Any]:
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, MemoryError) as error:
        return {"version": None, "problem": f"{type(error).__name__}: {error}"}
    return {"version": str(getattr(module, "__version__", "unknown")), "problem": None}


def _model() -> str:
    """The board's name where the device tree has one (Jetson, Raspberry Pi), else the processor's."""
    tree = _first_line(Path("/proc/device-tree/model"))
    if tree:
        return tree
    for line in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line(path: Path) -> str | None:
    try:
        lines = path.read_text(errors="replace").replace("\0", "").splitlines()
    except OSError:
        return None
    return lines[0].strip() if lines else None
