"""Disks that are full or read-only, and limits on files: said by name and mended by room; nothing half-written stays."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rsedge.cli.main import run_app
from rsedge.export.bundle import zip_bundle
from tests.faults.faults_ends import content, ran, run, scraps, tiny_run
from tests.faults.kinds import Result, kind
from tests.faults.material import material
from tests.runtimes import tiny_models as tiny

SAID = (
    "no space left", "free some", "larger than a file may be", "ulimit -f", "ead-only file system", "no temporary folder"
)  # fmt: skip
"""Some of these words tell what the matter is."""


@contextlib.contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may get larger than so many bytes, in this process and those that it starts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(place: Path, kib: int, read_only: bool) -> Iterator[bool]:
    """A disk of so many KiB at ``place``; False where this user may mount none."""
    place.mkdir()
    options = f"size={kib}k{',ro' if read_only else ''}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def _environment(**values: Path) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@kind("room: a run's stages on a full or read-only disk, or under a limit on files", seconds=90, few=2)
def no_room_for_a_run(rng: np.random.Generator, folder: Path) -> Result:
    """The run without a network; with room it then goes on to what an undisturbed run leaves."""
    right, _ = ran()
    disk, most = folder / "disk", sum(map(len, right.values()))
    way = str(rng.choice(["disk", "disk", "files", "read-only disk"]))
    kib, limit = int(rng.uniform(0, 1.3) * most) // 1024, int(rng.uniform(0, 1.2) * max(map(len, right.values())))
    what = f"{way}, {limit if way == 'files' else kib << 10} bytes"
    with small_disk(disk, 4 + kib, read_only=False) as mounted:
        if way != "files" and not mounted:
            return Result("harmless", f"{what}: may not be mounted here")
        if way == "read-only disk":
            remount(disk, "ro")
        with small_files(limit) if way == "files" else contextlib.nullcontext():
            code, said = run(tiny_run(disk / "run"), folder)
        if mounted:
            remount(disk, f"rw,size={4 + most // 256}k")
        half = [
            p.name
            for p in disk.glob("run/bundles/target/*")
            if p.stat().st_size != len(right[f"bundles/target/{p.name}"])
        ]
        left = [s for s in scraps(folder) if not s.endswith(".lock")]
        if half or left or code not in (0, 2, 4) or "Traceback" in said or (code and not any(w in said for w in SAID)):
            return Result("wrong", what, f"exit code {code}, {half or left}: {said[-300:]}")
        again, said_then = run(tiny_run(disk / "run"), folder)
        if again or content(disk / "run") != right:
            return Result("wrong", what, f"with room: exit code {again}: {said_then[-300:]}")
    return Result("refused" if code else "harmless", what, said[-200:])


def remount(disk: Path, options: str) -> None:
    """Other options for a disk of :func:`small_disk`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _left(place: Path) -> dict[str, int]:
    """Files and their sizes, without the lock that a run leaves."""
    return {str(p.relative_to(place)): p.stat().st_size for p in place.rglob("*") if p.is_file()}


@kind("room: a command writes on a full or read-only disk, or under a limit on files", few=6)
def no_room(rng: np.random.Generator, folder: Path) -> Result:
    """Into an output, the device's cache or the store of trusted keys. What is there in the end is what is there with room."""
    made = material()
    scene = tiny.write_scene(folder / "scene.tif", np.tile(made.dn[0], (1, 12, 14)), tiny.NAMES)
    bundle = zip_bundle(made.copy(folder), folder / "bundle.zip") if rng.random() < 0.3 else made.copy(folder)
    disk = folder / "disk"
    options = ["--key", str(made.key)]
    infer = ["infer", str(bundle), str(scene), *options, "--threads", "1"]
    commands = {
        "infer": [*infer, "-o", str(disk / "map.tif")],
        "infer, probabilities": [*infer, "-o", str(disk / "map.tif"), "--probabilities", str(disk / "p.tif")],
        "build": ["build", str(bundle), *options],
        "trust add": ["trust", "add", str(made.key)],
    }
    name = str(rng.choice(list(commands)))
    code, _, whole = _tried(commands[name], disk)
    if code:
        return Result("wrong", f"{name} with room: exit code {code}")
    way = str(rng.choice(["disk", "read-only disk", "files"]))
    most = int(rng.integers(0, 2 + max(whole.values())))
    what = f"{name}, {bundle.suffix or 'folder'}, {way} of {most} bytes"
    with contextlib.ExitStack() as stack:
        if way == "files":
            disk.mkdir()
            stack.enter_context(small_files(most))
        elif not stack.enter_context(small_disk(disk, 4 + most // 1024, way == "read-only disk")):
            return Result("harmless", f"{what}: may not be mounted here")
        code, said, found = _tried(commands[name], disk)
    if code == 0:
        return Result("harmless" if found.keys() == whole.keys() else "wrong", what, f"{found}, not {whole}")
    half = {n: size for n, size in found.items() if n in whole and name.startswith("infer")}
    scraps = [n for n in found if ".rsedge-" in n]
    if half or scraps or code not in (2, 4) or not any(word in said for word in SAID) or "Traceback" in said:
        return Result("wrong", what, f"exit code {code}, {half or scraps}: {said[-200:]}")
    return Result("refused", what, said[-200:])


def _tried(command: list[str], disk: Path) -> tuple[int, str, dict[str, int]]:
    """Exit code, what was said, and what lies on the disk then, which is emptied."""
    said = io.StringIO()
    places = _environment(RSEDGE_CACHE=disk / "cache", XDG_CONFIG_HOME=disk / "config")
    with places, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_app(command)
    found = _left(disk) if disk.exists() else {}
    if not os.path.ismount(disk):
        shutil.rmtree(disk, ignore_errors=True)
    return code, said.getvalue(), found
