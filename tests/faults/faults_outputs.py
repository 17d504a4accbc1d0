"""Commands that are told to write where they must not: what is there stays, to the byte, and nothing is put into a bundle."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rsedge.cli.main import run_app
from tests.faults.kinds import Result, kind
from tests.faults.material import material
from tests.runtimes import tiny_models as tiny

Targets = dict[str, Callable[[], Path]]


def linked(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def hard_linked(path: Path, target: Path) -> Path:
    os.link(target, path)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    """One of our own: what goes wrong here must not cost the machine its /dev/null."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        os.mkfifo(path)
    return path


def folder_named(path: Path) -> Path:
    path.mkdir()
    return path


def targets(folder: Path, inputs: dict[str, Path], suffix: str) -> Targets:
    """Ways to name what must not be written; the last is a plain file, which must be."""
    bundle, wanted = inputs["bundle"], folder / f"out{suffix}"
    found: Targets = {
        "a new file in the bundle": lambda: bundle / f"new{suffix}",
        "a new folder in the bundle": lambda: bundle / "deep" / f"new{suffix}",
        "a file of the bundle": lambda: bundle / "model.xml",
        "the bundle by a link": lambda: linked(folder / "b", bundle) / f"new{suffix}",
        "a link to nothing": lambda: linked(wanted, folder / "nothing"),
        "a pipe": lambda: pipe(wanted),
        "a device": lambda: device(wanted),
        "a device by a link": lambda: linked(wanted, device(folder / "device")),
        "a folder": lambda: folder_named(wanted),
        "below a file": lambda: inputs["scene"] / f"out{suffix}",
        "a long name": lambda: folder / ("n" * 300 + suffix),
        "an address": lambda: Path(f"https://example.invalid/out{suffix}"),
        "an address of a store": lambda: Path(f"s3://place/out{suffix}"),
        "a name of GDAL's": lambda: Path(f"/vsimem/out{suffix}"),
        "a name that GDAL's follow": lambda: Path(f"zip+https://place/out{suffix}"),
        "plain": lambda: wanted,
    }
    for name, path in inputs.items():
        found |= {
            f"{name}": lambda path=path: path,  # type: ignore[misc]
            f"{name}, relative": lambda path=path: Path(os.path.relpath(path)),  # type: ignore[misc]
            f"{name} by a link": lambda path=path: linked(wanted, path),  # type: ignore[misc]
            f"{name} by a linked folder": lambda path=path: linked(folder / "f", path.parent) / path.name,  # type: ignore[misc]
        }
        if path.is_file():
            found[f"{name} by a hard link"] = lambda path=path: hard_linked(wanted, path)  # type: ignore[misc]
    return found


def state(folder: Path) -> dict[str, str]:
    """Everything below a folder: kind, and content of files."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
        found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode)} {content}"
    return found


@kind("outputs: a command writes where it must not", few=12)
def written_where_not(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    place = folder / "place"
    place.mkdir()
    os.chdir(place)
    bundle = made.copy(place)
    scene = tiny.write_scene(place / "scene.tif", made.dn[0], tiny.NAMES)
    key = place / "key.pub"
    key.write_bytes(made.key.read_bytes())
    inputs = {"bundle": bundle, "scene": scene, "key": key}
    infer = ["infer", str(bundle), str(scene), "--key", str(key), "--threads", "1"]
    good = str(folder / "good.tif")
    commands: dict[str, tuple[list[str], str, str]] = {
        "infer -o": (infer, "-o", ".tif"),
        "infer --probabilities": ([*infer, "-o", good], "--probabilities", ".tif"),
        "budget --example": (["budget", "--example", "orbit"], "-o", ".yaml"),
        "init": (["init", "--yes"], "--output", ".yaml"),
        "schema": (["schema"], "--output", ".json"),
    }
    name = str(rng.choice(list(commands)))
    command, option, suffix = commands[name]
    ways = targets(place, inputs, suffix)
    way = str(rng.choice(list(ways)))
    target = ways[way]()
    before = state(place)
    code = run_app([*command, option, str(target)])
    what = f"{name} {way}: exit code {code}"
    after = state(place)
    if way == "plain":
        fine = code == 0 and set(after) - set(before) == {target.name}
        return Result("harmless" if fine else "wrong", what)
    if after != before:
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        return Result("wrong", what, f"changed: {json.dumps(changed)}")
    return Result("refused" if code in (2, 4) else "wrong", what)
