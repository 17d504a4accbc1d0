"""What runs for long (many scenes, a watched folder, a build), ended, crowded or short of memory: it goes on where it was."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.faults.faults_ends import ends, fault, run, scraps
from tests.faults.kinds import Result, kind
from tests.faults.material import material
from tests.runtimes import tiny_models as tiny

NAMES = ("a", "b", "c", "d")
SMALL, LARGE = 200 << 20, 3 << 30
"""Address space (bytes) in which nothing starts, and in which everything does."""


def command(name: str, *arguments: object) -> list[str]:
    bundle, key = material().bundle, material().key
    return [
        sys.executable,
        "-m",
        "rsedge.cli",
        name,
        str(bundle),
        *map(str, arguments),
        "--key",
        str(key),
        *([] if name == "build" else ["--threads", "1"]),
    ]


@functools.cache
def incoming() -> tuple[Path, dict[str, bytes], float]:
    """A folder of scenes, the pixels of their maps, and how long they take; once per process."""
    place = material().bundle.parent
    for number, name in enumerate(NAMES):
        dn = np.tile(np.roll(material().dn[0], number, 1), (1, 12, 12))
        (place / "incoming").mkdir(exist_ok=True)
        tiny.write_scene(place / "incoming" / f"{name}.tif", dn, tiny.NAMES)
    began = time.monotonic()
    code, said = run(command("infer", place / "incoming", "--output-dir", place / "maps"), place)
    assert code == 0, said
    return place / "incoming", pixels(place / "maps"), time.monotonic() - began


def pixels(folder: Path) -> dict[str, bytes]:
    """Class numbers of every map; the files also say when they were made."""
    import rasterio

    found = {}
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            found[path.name] = file.read().tobytes()
    return found


def _goes_on(words: list[str], folder: Path, rng: np.random.Generator) -> Result:
    """Ends a command up to three times, then lets it through: all maps are right, and none that was whole was made again."""
    _, right, seconds = incoming()
    maps, told, killed = folder / "maps", [], False
    for _ in range(int(rng.integers(1, 4))):
        chosen, code, said = ends(words, folder, rng, 1.1 * seconds)
        told.append(f"{chosen.name} {code}")
        killed |= chosen.name == "SIGKILL"
        there = pixels(maps)
        if any(right[name] != content for name, content in there.items()):
            return Result("wrong", str(told), "a map is not what it should be")
        ended_well = code == 0 and words[3] == "watch"
        if not ended_well and (bad := fault(chosen, code, said, [] if killed else scraps(folder))):
            return Result("wrong", str(told), bad)
    whole = {p.name: p.stat().st_mtime_ns for p in maps.glob("*.tif") if p.with_name(f"{p.name}.json").exists()}
    code, said = run(words, folder)
    if code or pixels(maps) != right:
        return Result("wrong", str(told), f"the next run: exit code {code}: {said[-200:]}")
    if again := [name for name, at in whole.items() if (maps / name).stat().st_mtime_ns != at]:
        return Result("wrong", str(told), f"made again: {again}")
    return Result("wrong", str(told), f"left {left}") if (left := scraps(folder)) else Result("harmless", str(told))


@kind("ends: many scenes are mapped into a folder", seconds=120, few=0)
def many_ended(rng: np.random.Generator, folder: Path) -> Result:
    return _goes_on(command("infer", incoming()[0], "--output-dir", folder / "maps"), folder, rng)


@kind("ends: a watched folder is mapped", seconds=120, few=0)
def watch_ended(rng: np.random.Generator, folder: Path) -> Result:
    options = ("--output-dir", folder / "maps", "--once", "--settle", 0, "--every", 0.1)
    return _goes_on(command("watch", incoming()[0], *options), folder, rng)


@kind("ends: what a device builds is built", seconds=120, few=0)
def build_ended(rng: np.random.Generator, folder: Path) -> Result:
    """After it the bundle gives the right answer, with what was built, without it, or by building it anew."""
    before = os.environ.get("RSEDGE_CACHE")
    os.environ["RSEDGE_CACHE"] = str(folder / "cache")
    try:
        chosen, code, said = ends(command("build"), folder, rng, 2.0)
        what = f"{chosen.name} {code}"
        left = [] if chosen.name == "SIGKILL" else [s for s in scraps(folder) if ".lock" not in s]
        if bad := fault(chosen, code, said, left):
            return Result("wrong", what, bad)
        for words in (command("verify"), command("build"), command("verify")):
            code, said = run(words, folder)
            if code:
                return Result("wrong", what, f"{words[3]}: exit code {code}: {said[-200:]}")
    finally:
        os.environ.pop("RSEDGE_CACHE") if before is None else os.environ.update({"RSEDGE_CACHE": before})
    return Result("harmless", what)


@kind("room: infer has less memory than it needs", seconds=60, few=0)
def no_memory(rng: np.random.Generator, folder: Path) -> Result:
    """Under a limit of address space: refused in words or right; nothing half-written stays, and with memory it goes on."""
    scenes, right, _ = incoming()
    most = int(np.exp(rng.uniform(np.log(SMALL), np.log(LARGE))))
    output = folder / "a.tif"
    words = command("infer", scenes / "a.tif", "-o", output)
    (folder / "tmp").mkdir()
    where = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    limited = ["sh", "-c", f'ulimit -v {most // 1024}; exec "$@"', "sh", *words]
    done = subprocess.run(limited, capture_output=True, text=True, env=where, check=False)
    what = f"{most >> 20} MiB of address space, exit code {done.returncode}"
    if output.exists() and pixels(folder) != {"a.tif": right["a.tif"]}:
        return Result("wrong", what, "a map that is not right")
    if done.returncode == 0 and not output.exists():
        return Result("wrong", what, "no map")
    if left := scraps(folder):
        return Result("wrong", what, f"left {left}")
    code, said = run(words, folder)
    if code or pixels(folder) != {"a.tif": right["a.tif"]}:
        return Result("wrong", what, f"with memory: exit code {code}: {said[-200:]}")
    return Result("refused" if done.returncode else "harmless", what, done.stderr[-200:])


@kind("races: two map the same scenes into one folder", seconds=120, few=0)
def two_into_one(rng: np.random.Generator, folder: Path) -> Result:
    scenes, right, _ = incoming()
    (folder / "tmp").mkdir()
    where = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    running = []
    for _ in range(2):
        words = command("infer", scenes, "--output-dir", folder / "maps")
        running.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=where))
        time.sleep(float(rng.uniform(0, 1.0)))
    ended = [(child.communicate()[1], child.returncode) for child in running]
    bad = [said[-200:] for said, code in ended if code] + scraps(folder)
    if bad or pixels(folder / "maps") != right:
        return Result("wrong", "two of infer", str(bad))
    code, said = run(command("infer", scenes, "--output-dir", folder / "maps"), folder)
    return Result(
        "harmless" if code == 0 and said.count("skipped") >= len(NAMES) else "wrong", "two of infer", said[-200:]
    )
