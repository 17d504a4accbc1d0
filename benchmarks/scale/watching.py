"""A recipe in a process of its own, and the memory that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOOK_S = 0.05


def watched_run(work: Path, recipe: str) -> dict[str, Any]:
    """Runs a recipe in ``work``: most memory at once (:func:`watched`), ``allowed`` bytes of it, and seconds; ends with the run's
    last words where it fails."""
    (work / "recipe.yaml").write_text(recipe, encoding="utf-8")
    command = [sys.executable, "-m", "rsedge.cli", "run", str(work / "recipe.yaml"), "--run-dir", str(work / "run")]
    began = time.monotonic()
    with (work / "log.txt").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        peaks = watched(child)
    if child.returncode:
        raise SystemExit((work / "log.txt").read_text(encoding="utf-8")[-3000:])
    return {**peaks, "seconds": round(time.monotonic() - began, 1), "allowed": allowed()}


def allowed() -> int:
    """Bytes of memory, pages of files among them, that this process and its children may have."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, kinds, group = line.split(":", 2)
        for limit in (
            f"memory{group}/memory.limit_in_bytes" if "memory" in kinds.split(",") else "",
            f"{group}/memory.max",
        ):
            place = Path("/sys/fs/cgroup") / limit.lstrip("/")
            if limit and place.is_file() and (text := place.read_text(encoding="ascii").strip()).isdecimal():
                whole = min(whole, int(text))
    return whole


def watched(child: subprocess.Popen[bytes]) -> dict[str, int]:
    """The most that a process held at once, in bytes, until it ended."""
    peaks = {"anon": 0, "file": 0}
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
        except OSError:
            break
        found = {
            k: int(v.split()[0]) * 1024
            for k, _, v in (line.partition(":") for line in lines)
            if k in ("RssAnon", "RssFile")
        }
        peaks = {
            "anon": max(peaks["anon"], found.get("RssAnon", 0)),
            "file": max(peaks["file"], found.get("RssFile", 0)),
        }
        time.sleep(LOOK_S)
    child.wait()
    return peaks
