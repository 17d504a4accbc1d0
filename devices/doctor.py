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
from rsedge.runtimes.backend import Installed
from rsedge.runtimes.registry import backends, broken

PACKAGE = "rsedge"


def diagnose() -> dict[str, Any]:
    """Everything ``rsedge doctor`` shows, as plain JSON values. Never raises for something missing."""
    cpu = detect_cpu()
    runtimes = [*map(_runtime, _installed()), *(_broken(*one) for one in broken().items())]
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


def _installed() -> list[Installed]:
    """The modules that bring runtimes; of packages of others, too."""
    return [one for found in backends() for one in found.installed]


def _install(extra: str) -> str:
    """The command that brings an extra; TensorRT's libraries are only on NVIDIA's own index."""
    index = next((one.index for one in _installed() if one.extra == extra and one.index), None)
    command = f"pip install '{PACKAGE}[{extra}]'"
    return command if index is None else f"{command} --extra-index-url {index}"


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _runtime(one: Installed) -> dict[str, Any]:
    present = importlib.util.find_spec(one.module) is not None
    found: dict[str, Any] = {
        "name": one.name,
        "available": present,
        "version": _version(one.distributions) if present else None,
        "role": one.role,
        "devices": [],
        "install": None if present or one.extra is None else _install(one.extra),
        "problem": None,
    }
    if present and one.devices is not None:
        try:
            found["devices"] = one.devices()
        except (ImportError, OSError, RuntimeError) as error:
            found["available"], found["problem"] = False, f"installed but does not load: {error}"
    return found


def _broken(name: str, problem: str) -> dict[str, Any]:
    role = "runtime of another package"
    return {
        "name": name,
        "available": False,
        "version": None,
        "role": role,
        "devices": [],
        "install": None,
        "problem": problem,
    }


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
