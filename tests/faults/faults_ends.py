"""Commands that are ended at a random moment, by every signal that ends them: nothing half-written, nothing left behind."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rsedge.data.temporary import TemporaryFolder
from tests.faults.kinds import Result, kind
from tests.faults.material import material
from tests.runtimes import tiny_models as tiny

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
SIZE = 1200


def ends(command: list[str], folder: Path, rng: np.random.Generator, longest: float) -> tuple[signal.Signals, int, str]:
    """Starts a command with a temporary folder of its own, ends it after a random time; the signal, exit code and messages."""
    chosen = SIGNALS[int(rng.integers(len(SIGNALS)))]
    child = _started(command, folder)
    time.sleep(float(rng.uniform(0, longest)))
    child.send_signal(chosen)
    _, errors = child.communicate()
    return chosen, child.returncode, errors


def _started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    where = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where)


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """The same to its end."""
    child = _started(command, folder)
    _, errors = child.communicate()
    return child.returncode, errors


def scraps(folder: Path) -> list[str]:
    """What a command left beside its outputs and in its temporary folder."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*")] + [p.name for p in (folder / "tmp").glob("*")]


def fault(chosen: signal.Signals, code: int, errors: str, left: list[str]) -> str | None:
    """What is wrong with how it ended; a signal before the command's first line finds Python's own handlers."""
    if code not in (0, -chosen, 128 + chosen):
        return f"exit code {code}: {errors[-200:]}"
    if code == 128 + chosen and ("interrupted" not in errors or "Traceback" in errors):
        return f"told: {errors[-200:]}"
    if chosen != signal.SIGKILL and left:
        return f"left {left}"
    return None


@functools.cache
def mapped() -> tuple[Path, Path, bytes, float]:
    """A zip of the bundle, a scene, its map, and how long that takes; made once per process."""
    from rsedge.export.bundle import zip_bundle

    made = material()
    place = made.bundle.parent
    bundle = zip_bundle(made.bundle, place / "bundle.zip")
    dn = np.tile(made.dn[0], (1, SIZE // 32 + 1, SIZE // 32 + 1))[:, :SIZE, :SIZE]
    scene = tiny.write_scene(place / "scene.tif", dn, tiny.NAMES)
    began = time.monotonic()
    code, errors = run(infer(bundle, scene, place / "whole.tif"), place)
    assert code == 0, errors
    return bundle, scene, map_content(place / "whole.tif"), time.monotonic() - began


def map_content(path: Path) -> bytes:
    """What a map says: its pixels and its tags but for the time at which it was made; of what is no map its bytes."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(path) as file:
            tags = {name: value for name, value in file.tags().items() if name != "TIFFTAG_DATETIME"}
            return json.dumps(tags, sort_keys=True).encode() + file.read().tobytes()
    except RasterioIOError:
        return path.read_bytes()


def infer(bundle: Path, scene: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "rsedge.cli", "infer", str(bundle), str(scene), "-o", str(output), "--threads", "1"]


@kind("ends: infer is ended at a random moment", seconds=60, few=1)
def infer_ended(rng: np.random.Generator, folder: Path) -> Result:
    bundle, scene, right, seconds = mapped()
    if rng.random() < 0.5:
        bundle = Path(shutil.copytree(material().bundle, folder / "bundle"))
    output = folder / "map.tif"
    old = b"what was there" if rng.random() < 0.5 else None
    if old is not None:
        output.write_bytes(old)
    command = infer(bundle, scene, output)
    chosen, code, errors = ends(command, folder, rng, 1.1 * seconds)
    what = f"{bundle.suffix or 'folder'}, {chosen.name}, exit code {code}"
    now = map_content(output) if output.exists() else None
    if now not in (old, right):
        return Result("wrong", what, f"the output is neither the old nor the new one ({now and len(now)} bytes)")
    if bad := fault(chosen, code, errors, scraps(folder)):
        return Result("wrong", what, bad)
    code, errors = run(command, folder)
    if code or map_content(output) != right:
        return Result("wrong", what, f"the next run: exit code {code}: {errors[-200:]}")
    if left := scraps(folder):
        return Result("wrong", what, f"the next run left {left}")
    return Result("harmless", what)


@functools.cache
def ran() -> tuple[dict[str, bytes], float]:
    """What the tiny run leaves, and how long it takes; once per process."""
    with TemporaryFolder() as folder:
        began = time.monotonic()
        code, errors = run(tiny_run(folder / "run"), folder)
        assert code == 0, errors
        return content(folder / "run"), time.monotonic() - began


def tiny_run(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.faults.tiny_run", str(folder)]


def content(folder: Path) -> dict[str, bytes]:
    """Files and their bytes; records tell times, which differ."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("record.json", ".lock")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@kind("ends: a run's stages are ended at random moments", seconds=90, few=1)
def run_ended(rng: np.random.Generator, folder: Path) -> Result:
    """Ended up to three times, then let through: what it leaves is, bit for bit, what an undisturbed run leaves."""
    right, seconds = ran()
    root, told = folder / "run", []
    for _ in range(int(rng.integers(1, 4))):
        chosen, code, errors = ends(tiny_run(root), folder, rng, 1.1 * seconds)
        told.append(f"{chosen.name} {code}")
        bundle = root / "bundles" / "target"
        if bundle.exists() and {p.name for p in bundle.iterdir()} != {"whole", "content"}:
            return Result("wrong", str(told), f"the bundle holds {sorted(p.name for p in bundle.iterdir())}")
        left = [s for s in scraps(folder) if not s.endswith(".lock")]
        if bad := fault(chosen, code, errors, [] if "SIGKILL" in " ".join(told) else left):
            return Result("wrong", str(told), bad)
    code, errors = run(tiny_run(root), folder)
    if code or content(root) != right:
        return Result("wrong", str(told), f"the next run: exit code {code}: {errors[-200:]}")
    if left := [s for s in scraps(folder) if not s.endswith(".lock")]:
        return Result("wrong", str(told), f"the next run left {left}")
    return Result("harmless", str(told))
