"""Several processes at the same thing at once: nothing is lost, nothing half-written, and nobody sees what lies between."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.errors import RequestError, RsedgeError
from rsedge.data.folders import CACHE_VARIABLE
from rsedge.export.signing import write_public
from rsedge.runtimes.bundle import trust
from rsedge.runtimes.device_cache import Slot, load, store
from tests.faults.faults_ends import infer, map_content, mapped, scraps
from tests.faults.kinds import Result, kind

MANY = 5


def at_once(folder: Path, acts: list[Callable[[], Any]]) -> list[Any]:
    """Runs each in a process of its own, all from the same moment on; what each gives (JSON), or its error as a text."""
    began, children = time.monotonic() + 0.05, []
    for number, act in enumerate(acts):
        if (child := os.fork()) == 0:
            time.sleep(max(0.0, began - time.monotonic()))
            try:
                found = act()
            except RsedgeError as error:
                found = f"{type(error).__name__}: {error}"
            except BaseException as error:  # noqa: BLE001 - what is looked for
                found = f"crashed: {error!r}"
            (folder / f"{number}.json").write_text(json.dumps(found))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(acts))]


@kind("races: one entry of the device's cache is built by several at once, and read meanwhile", few=2)
def built_at_once(rng: np.random.Generator, folder: Path) -> Result:
    slot = Slot("blob", "ab" * 32, "a processor", folder / "bundle")
    contents = [rng.bytes(int(rng.integers(1, 200_000))) for _ in range(MANY)]

    def build(number: int) -> None:
        for _ in range(4):
            store(slot, contents[number], {"number": number})

    def read() -> bool:
        seen = [load(slot) for _ in range(12)]
        return all(s is None or s.content == contents[s.about["number"]] for s in seen)

    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    try:
        said = at_once(folder, [*(lambda n=n: build(n) for n in range(MANY)), read, read])  # type: ignore[misc]
        bad = [s for s in said if s not in (None, True)]
        if bad or not read():
            return Result("wrong", f"{MANY} builds", str(bad)[:300])
        left = sorted(p.name for p in slot.folder.iterdir())
    finally:
        os.environ.pop(CACHE_VARIABLE) if before is None else os.environ.update({CACHE_VARIABLE: before})
    return Result("harmless" if len(left) == 2 else "wrong", f"{MANY} builds", str(left))


@kind("races: keys are trusted and no longer at once", few=2)
def trusted_at_once(rng: np.random.Generator, folder: Path) -> Result:
    """Two of them under one name: one of the two is told so. Whoever asks meanwhile finds keys, or that none is asked for."""
    names = ["old", "new", "new", "other", "more"]
    keys = [write_public(Ed25519PrivateKey.generate(), folder / f"{n}{i}.pub") for i, n in enumerate(names)]
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    try:
        there = rng.random() < 0.5
        if there:
            trust.add_key(keys[0], names[0])

        def add(number: int) -> str:
            return trust.add_key(keys[number], names[number]).fingerprint

        def remove() -> int:
            return trust.remove_key("old")

        def ask() -> list[int]:
            return [len(trust.trusted_keys()) for _ in range(20)]

        adds = [lambda n=n: add(n) for n in range(1, len(keys))]  # type: ignore[misc]
        said = at_once(folder, [*adds, *([remove] if there else []), ask, ask])
        found = {k.fingerprint for k in trust.trusted_keys()}
    finally:
        os.environ.pop("XDG_CONFIG_HOME") if before is None else os.environ.update({"XDG_CONFIG_HOME": before})
    added = said[: len(adds)]
    refused = [s for s in added if s.startswith(RequestError.__name__) and "'new'" in s]
    wrong = [s for s in said if isinstance(s, str) and s not in found and s not in refused]
    fine = not wrong and len(refused) == 1 and found == set(added) - set(refused)
    return Result(
        "harmless" if fine else "wrong", f"{'one' if there else 'none'} before", f"{said}; {len(found)} left"[:400]
    )


@kind("races: two of infer write one map", seconds=60, few=1)
def mapped_at_once(rng: np.random.Generator, folder: Path) -> Result:
    bundle, scene, right, _ = mapped()
    output = folder / "map.tif"
    (folder / "tmp").mkdir()
    where = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    running = []
    for _ in range(2):
        running.append(subprocess.Popen(infer(bundle, scene, output), stderr=subprocess.PIPE, text=True, env=where))
        time.sleep(float(rng.uniform(0, 0.5)))
    ended = [(child.communicate()[1], child.returncode) for child in running]
    bad = [said[-200:] for said, code in ended if code] + scraps(folder)
    fine = not bad and map_content(output) == right
    return Result("harmless" if fine else "wrong", "two of infer", str(bad))
