"""What this machine has and lacks: runtimes, instruction sets, drivers, extras, and the command that installs each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.devices.profiles.profile import load_profile
from rsedge.runtimes.litert import core as litert
from rsedge.runtimes.openvino.core import shared_core

PACKAGE = "rsedge"
# Runtime -> (module, distributions that bring it, extra).
RUNTIME_MODULES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "openvino": ("openvino", ("openvino",), "openvino"),
    "onnxruntime": ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "onnxruntime"),
    "litert": ("ai_edge_litert", ("ai-edge-litert",), "litert"),
    "tensorrt": ("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13"), "tensorrt-rtx"),
}
ROLES = {
    "openvino": "runs on CPU, GPU and NPU",
    "onnxruntime": "runs on CPU and CUDA; second opinion",
    "litert": "runs on CPU, small; for Arm boards",
    "tensorrt": "builds and runs engines (a Jetson has it with JetPack)",
    "tensorrt-rtx": "compile gate only, needs no GPU",
}


def diagnose() -> dict[str, Any]:
    """Everything ``rsedge doctor`` shows, as plain JSON values. Never raises for something missing."""
    cpu = detect_cpu()
    runtimes = [_runtime(name) for name in RUNTIME_MODULES]
    extras = _extras()
    return {
        "rsedge": _version((PACKAGE,)),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": cpu.model_dump(mode="json")
        | {"int8_dot_product": cpu.has("avx512-vnni", "avx-vnni", "dotprod", "i8mm")},
        "memory": {"total_bytes": psutil.virtual_memory().total, "available_bytes": psutil.virtual_memory().available},
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "runtimes": runtimes,
        "nvidia": _nvidia(),
        "npu": sorted(str(p) for p in Path("/dev/accel").glob("accel*")) if Path("/dev/accel").exists() else [],
        "extras": extras,
        "targets_here": _targets_here(runtimes),
        "missing": [
            {"what": e["name"], "command": e["install"]} for e in extras if not e["complete"] and e["name"] != "all"
        ],
    }


def _install(extra: str) -> str:
    """The command that brings an extra; TensorRT's libraries are only on NVIDIA's own index."""
    command = f"pip install '{PACKAGE}[{extra}]'"
    return f"{command} --extra-index-url https://pypi.nvidia.com" if extra == "tensorrt" else command


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _runtime(name: str) -> dict[str, Any]:
    module, distributions, extra = RUNTIME_MODULES[name]
    present = importlib.util.find_spec(module) is not None
    found: dict[str, Any] = {
        "name": name,
        "available": present,
        "version": _version(distributions) if present else None,
        "role": ROLES[name],
        "devices": [],
        "install": None if present else _install(extra),
        "problem": None,
    }
    probe = {"openvino": _openvino_devices, "onnxruntime": _onnxruntime_devices, "litert": _litert_devices}.get(name)
    if present and probe is not None:
        try:
            found["devices"] = probe()
        except (ImportError, OSError, RuntimeError) as error:
            found["available"], found["problem"] = False, f"installed but does not load: {error}"
    return found


def _openvino_devices() -> list[str]:
    core = shared_core()
    shown = []
    for device in core.available_devices:
        able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        shown.append(f"{device} ({', '.join(a for a in able if a not in ('BIN', 'EXPORT_IMPORT'))})")
    return shown


def _litert_devices() -> list[str]:
    importlib.import_module("ai_edge_litert.interpreter")
    return list(litert.DEVICES)


def _onnxruntime_devices() -> list[str]:
    import onnxruntime as ort

    return [str(p).removesuffix("ExecutionProvider") for p in ort.get_available_providers()]


def _nvidia() -> dict[str, Any]:
    """Driver and GPUs, from the kernel module and nvidia-smi; a Jetson's release from /etc/nv_tegra_release."""
    tegra = Path("/etc/nv_tegra_release")
    found: dict[str, Any] = {
        "driver": None,
        "gpus": [],
        "jetson": tegra.read_text().strip() if tegra.exists() else None,
    }
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return found
    query = [smi, "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return found
    for line in done.stdout.strip().splitlines() if done.returncode == 0 else []:
        driver, _, rest = line.partition(", ")
        found["driver"] = driver
        found["gpus"].append(rest)
    return found


def _extras() -> list[dict[str, Any]]:
    """The extras of the installed package, which of their distributions are missing, and how to get them."""
    try:
        requirements = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted: dict[str, list[str]] = {}
    for line in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if name and extra and name.group() != PACKAGE:
            wanted.setdefault(extra.group(1), []).append(name.group())
    found = []
    for extra_name, names in sorted(wanted.items()):
        absent = [n for n in names if _version((n,)) is None]
        install = _install(extra_name) if absent else None
        found.append({"name": extra_name, "complete": not absent, "missing": absent, "install": install})
    return found


def _targets_here(runtimes: list[dict[str, Any]]) -> list[str]:
    present = {r["name"] for r in runtimes if r["available"]}
    return [t for t in load_profile("cpu").possible_targets() if t.partition("-")[0] in present]
