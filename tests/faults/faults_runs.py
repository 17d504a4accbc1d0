"""A small real recipe (:mod:`tests.real_run`) that is ended in each of its stages, again and again, and then goes on to its end.

Of an undisturbed run a copy is made that has lost a stage and all behind it; that stage is under way as the signal comes. What the
run is in the end is, bit for bit, the undisturbed one. An attempt takes the better part of a minute: `make fuzz` alone tries them.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.faults_room import SAID, remount, small_disk, small_files
from tests.faults.kinds import Result, kind
from tests.real_run import MISSED, command

STAGES = ("data", "teacher", "distill", "prune", "export", "quantize", "verify", "bundle")
REPORT = "report"
"""No stage, but what is written behind the last one."""
WRITTEN = ("report.html", "report.json", "model_card.md", "bundles")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# What autocast is chosen by is measured, and a run does not promise the same bits under it.
OPTIONS = ("--json", "--set", "steps.distill.autocast=off")
MARK = "RSEDGE_TEST_RUN"
COUNTED = re.compile(rb"_[0-9]+(?=[\"_/.,])")
"""What OpenVINO numbers by all nodes that its process has made."""
TORCHS = "torchinductor_"
"""An empty folder that torch makes once per user, and each run finds."""
START_S, SETTLED_S = 240, 10
DATED = ("record.json", "manifest.json", "manifest.sig", "report.html", "report.json", "recipe.resolved.yaml", ".lock")
"""Files that hold times, or the run folder's name."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its folder, files and their bytes, seconds of each stage, seconds of starting one that is done."""

    folder: Path
    content: dict[str, bytes]
    seconds: dict[str, float]
    again: float


@functools.cache
def whole() -> Whole:
    """Made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="rsedge-real-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    code, said = finished(folder)
    assert code == 3, said
    began = time.monotonic()
    finished(folder)
    again = time.monotonic() - began
    seconds = {name: float(_record(folder, name)["seconds"]) for name in STAGES}
    return Whole(folder, content(folder / "run"), seconds, again)


def _record(folder: Path, stage: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "run" / "stages" / stage / "record.json").read_text())
    return found


def started(folder: Path, tmp: Path | None = None) -> subprocess.Popen[str]:
    """The recipe in ``folder``, with temporary folders there or in ``tmp``; it and its children are known by their environment."""
    place = (tmp or folder) / "tmp"
    place.mkdir(exist_ok=True)
    where = {
        **os.environ,
        "TMPDIR": str(place),
        "OMP_NUM_THREADS": "1",
        "RSEDGE_TEACHER_CACHE": str(folder / "cache"),
        MARK: str(folder),
    }
    words = command(folder, *OPTIONS, traced=False)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where)


def finished(folder: Path, tmp: Path | None = None) -> tuple[int, str]:
    """Exit code and messages of a run to its end."""
    child = started(folder, tmp)
    out, errors = child.communicate()
    return child.returncode, out + errors


def content(run: Path) -> dict[str, bytes]:
    """Files and their bytes; of those that hold times, that they are there; of OpenVINO's graphs all but numbers in its names."""
    files = [p for p in run.rglob("*") if p.is_file()]
    found = {str(p.relative_to(run)): b"" if p.name in DATED else p.read_bytes() for p in files}
    return {name: COUNTED.sub(b"", bytes_) if name.endswith(".xml") else bytes_ for name, bytes_ in found.items()}


def cut(folder: Path, stage: str) -> Path:
    """A copy of the undisturbed run that has lost a stage and all that comes behind."""
    made = Path(shutil.copytree(whole().folder, folder / "job", ignore=shutil.ignore_patterns("tmp")))
    run = made / "run"
    lost = STAGES[STAGES.index(stage) :] if stage in STAGES else ()
    early = [made / "cache"] if stage in STAGES[:3] else []
    for place in [*(run / "stages" / name for name in lost), *(run / name for name in WRITTEN), *early]:
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    return made


def ended(folder: Path, stage: str, chosen: signal.Signals, part: float) -> tuple[int, str]:
    """Runs a job, and ends it after a part of the time that the stage takes; exit code and messages."""
    child = started(folder)
    if stage == REPORT:
        time.sleep((0.3 + 0.9 * part) * whole().again)
    else:
        own = folder / "run" / "stages" / stage
        _wait(lambda: (own / "resume" / "key").exists() or (own / "record.json").exists(), child)
        time.sleep(1.05 * part * whole().seconds[stage])
    child.send_signal(chosen)
    out, errors = child.communicate()
    return child.returncode, out + errors


def _wait(until: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not until() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def children(folder: Path) -> list[str]:
    """Processes of a run in ``folder`` that are there a while after it ended."""
    deadline = time.monotonic() + SETTLED_S
    while (found := _marked(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _marked(folder: Path) -> list[str]:
    mark, found = f"{MARK}={folder}\0".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:
            continue
    return found


def scraps(folder: Path) -> list[str]:
    """Temporary files and folders beside outputs and where temporary ones lie."""
    hidden = [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name != ".lock"]
    return hidden + [p.name for p in (folder / "tmp").glob("*") if not p.name.startswith(TORCHS)]


@kind("ends: a real recipe is ended in any of its stages", seconds=900, few=0)
def real_run_ended(rng: np.random.Generator, folder: Path) -> Result:
    stage = str(rng.choice([*STAGES, REPORT]))
    job, told = cut(folder, stage), [stage]
    for _ in range(int(rng.integers(1, 3))):
        chosen = SIGNALS[int(rng.integers(len(SIGNALS)))]
        code, said = ended(job, stage, chosen, float(rng.random()))
        told.append(f"{chosen.name} {code}")
        if bad := fault(job, chosen, code, said):
            return Result("wrong", str(told), bad)
    code, said = finished(job)
    if (
        code != 3
        or said.count('"failed_gates"') != 1
        or len(json.loads(said.splitlines()[0])["failed_gates"]) != MISSED
    ):
        return Result("wrong", str(told), f"the last run: exit code {code}: {said[-300:]}")
    if other := differences(content(job / "run"), whole().content):
        return Result("wrong", str(told), f"differ: {other[:5]}")
    if left := [*scraps(job), *children(job)]:
        return Result("wrong", str(told), f"the last run left {left}")
    return Result("harmless", str(told))


def fault(job: Path, chosen: signal.Signals | None, code: int, said: str) -> str | None:
    """What is wrong with how a run ended, by a signal or for want of room; one that was done before that missed its gates."""
    if code not in (3, *((2, 4) if chosen is None else (-chosen, 128 + chosen))) or "Traceback" in said:
        return f"exit code {code}: {said[-300:]}"
    if left := children(job):
        return f"children go on: {left}"
    if chosen != signal.SIGKILL and (left := scraps(job)):
        return f"left {left}"
    half = [p for p in (job / "run" / "bundles").glob("*") if not (p / "manifest.json").exists()]
    return f"half a bundle: {half}" if half else None


def differences(found: dict[str, bytes], right: dict[str, bytes]) -> list[str]:
    """Names of files that differ, or are there once."""
    return sorted(n for n in found.keys() | right.keys() if found.get(n) != right.get(n))


@kind("room: a real recipe on a full or read-only disk, or under a limit on files", seconds=900, few=0)
def real_run_without_room(rng: np.random.Generator, folder: Path) -> Result:
    """What lies on the disk when it ends is what a killed run may leave, and with room the run goes on to the right end."""
    stage = str(rng.choice([*STAGES, REPORT]))
    way = str(rng.choice(["disk", "disk", "files", "read-only disk"]))
    disk = folder / "disk"
    with small_disk(disk, 1 << 20, read_only=False) as mounted:
        if way != "files" and not mounted:
            return Result("harmless", f"{way}: may not be mounted here")
        job = cut(disk, stage)
        room = int(rng.uniform(0, 1.1) * (_bytes(whole().content) - _bytes(content(job / "run"))))
        what = f"{stage}, {way}, room for {room} bytes"
        if way == "files":
            largest = max(map(len, whole().content.values()))
            with small_files(int(rng.uniform(0, 1.2) * largest)):
                code, said = finished(job)
        else:
            taken = shutil.disk_usage(disk).used
            remount(disk, f"size={(taken + room) // 1024}k" if way == "disk" else "ro")
            code, said = finished(job, tmp=folder)
            remount(disk, f"size={1 << 20}k,rw")
        if bad := fault(job, None, code, said):
            return Result("wrong", what, bad)
        if code != 3 and not any(word in said for word in SAID):
            return Result("wrong", what, f"exit code {code}: {said[-300:]}")
        again, last = finished(job)
        if again != 3 or (other := differences(content(job / "run"), whole().content)):
            return Result("wrong", what, f"with room: exit code {again}: {last[-300:] if again != 3 else other[:5]}")
        if left := [*scraps(job), *children(job)]:
            return Result("wrong", what, f"with room it left {left}")
    return Result("harmless" if code == 3 else "refused", what, said[-200:])


def _bytes(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))
