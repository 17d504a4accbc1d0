"""One job on the device: check the bundle, hold the model against its golden vector, measure it, tell its memory."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.devices.onboard import protocol
from rsedge.devices.onboard.engines import INPUT, Engine, open_engine
from rsedge.devices.onboard.memory import high_water_bytes
from rsedge.devices.onboard.sensors import Sensors
from rsedge.devices.onboard.tegrastats import power_mode
from rsedge.runtimes.checked import CheckedModel, read_checked

if TYPE_CHECKING:
    from collections.abc import Callable

    Notice = Callable[[str, float], None]

MANIFEST = "manifest.json"
ENGINE = "model.engine"
LAYER_RUNS = 20


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name, then renames: a reader sees the old content or the new."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def wrong_files(folder: Path) -> list[str]:
    """Files that are missing or not what the folder's manifest says (size, SHA-256).

    Raises:
        IntegrityError: there is no manifest, or it is no JSON.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise IntegrityError(f"{folder}: no whole {MANIFEST} ({error})") from error
    return sorted(name for name, entry in listed.items() if not _is_whole(folder / name, entry))


def run(bundle: Path, job: dict[str, Any], notice: Notice) -> dict[str, Any]:
    """Measures the bundle in ``bundle`` and returns the result; ``notice`` is told the step and its share.

    Args:
        job: ``threads`` (None: all), ``seconds``, ``burst_seconds``, ``idle_seconds``, ``warmup``, ``min_runs``,
            ``device`` (the runtime's name of it) and ``layers`` (bool).

    Raises:
        RequestError, MissingCapability: the model cannot be run here.
    """
    manifest = json.loads((bundle / MANIFEST).read_text())
    notice("opening the model", 0.0)
    engine = _open(bundle, manifest, job, lambda step: notice(step, 0.0))
    try:
        golden = _golden_vector(bundle, manifest, engine)
        notice("measuring", 0.0)
        measurement, unreadable = _measure(engine, golden["dn"], job, lambda share: notice("measuring", share))
        result = {"golden": golden["record"], "build": engine.build, "unreadable_counters": unreadable}
        measurement["precision"] = manifest["target"]["precision"]
        rows = engine.layers(golden["dn"], LAYER_RUNS) if job["layers"] and engine.build is not None else None
    finally:
        engine.close()
    if job["layers"]:
        notice("profiling layers", 0.0)
        result["layers"] = rows if rows is not None else _layers(bundle, manifest, job, golden["dn"])
    notice("measuring memory", 0.0)
    measurement["peak_rss_bytes"] = _memory_of_a_fresh_process(bundle, job)
    return {**result, "measurement": measurement}


def peak_memory(bundle: Path, job: dict[str, Any], runs: int = 3) -> int:
    """Peak resident memory (bytes) of this process after it opened the model and ran it; call it in a fresh one."""

    manifest = json.loads((bundle / MANIFEST).read_text())
    engine = _open(bundle, manifest, job, lambda _: None)
    with _stored(bundle, manifest) as stored:
        dn = _first_input(stored, engine)
    for _ in range(runs):
        engine(dn)
    engine.close()
    return high_water_bytes()


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return bool(digest.hexdigest() == entry["sha256"])


def _open(
    bundle: Path, manifest: dict[str, Any], job: dict[str, Any], notice: Callable[[str], None], profile: bool = False
) -> Engine:
    """The model, held against the manifest as its bytes are read. An engine is kept beside the bundle, never in it."""
    target = manifest["target"]

    def read(place: Path) -> bytes:
        entry = manifest["files"][place.relative_to(bundle).as_posix()]
        return read_checked(place, entry["bytes"], entry["sha256"])

    path = CheckedModel(bundle / manifest["model_file"], read)
    made = manifest.get("build")
    precision, threads = target["precision"], job["threads"]
    return open_engine(
        path, target["runtime"], job["device"], precision, threads, profile, notice, made, bundle.parent / ENGINE
    )


def _stored(bundle: Path, manifest: dict[str, Any]) -> Any:
    """The golden file, read and checked at once."""
    import numpy as np

    name = manifest["golden"]["file"]
    entry = manifest["files"][name]
    return np.load(io.BytesIO(read_checked(bundle / name, entry["bytes"], entry["sha256"])), allow_pickle=False)


def _first_input(stored: Any, engine: Engine) -> Any:
    """The golden file's first input, whatever its layout, in the graph's dtype."""
    import numpy as np

    return np.ascontiguousarray(stored[INPUT][:1], dtype=engine.dtype())


def _golden_vector(bundle: Path, manifest: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """The stored first tile in the graph's dtype, and how the engine's output compares with the stored one."""
    import numpy as np

    golden = manifest["golden"]
    with _stored(bundle, manifest) as stored:
        dn = _first_input(stored, engine)
        logits, valid = stored["logits"][:1], stored["valid"][:1]
    got_logits, got_valid = engine(dn)
    mask = valid.astype(bool)
    keep = mask if logits.ndim == 4 else np.ones(len(logits), dtype=bool)
    difference = np.abs(got_logits - logits).max(axis=1)[keep]
    same = (got_logits.argmax(1) == logits.argmax(1))[keep]
    worst = float(difference.max()) if difference.size else 0.0
    agreement = float(same.mean()) if same.size else 1.0
    passed = worst <= golden["atol"] and agreement >= golden["agreement_min"]
    record = {
        "passed": bool(passed and np.array_equal(got_valid.astype(bool), mask)),
        "max_abs_difference": worst,
        "agreement": agreement,
        "atol": golden["atol"],
        "agreement_min": golden["agreement_min"],
        "n": int(keep.sum()),
    }
    return {"dn": dn, "record": record}


def _measure(
    engine: Engine, dn: Any, job: dict[str, Any], share: Callable[[float], None]
) -> tuple[dict[str, Any], list[str]]:
    plan = protocol.Plan(job["seconds"], job["warmup"], job["min_runs"], job["burst_seconds"], job["idle_seconds"])
    stream = engine.stream
    reported = [0.0]

    def progress(_: int, done: float) -> None:
        if time.perf_counter() - reported[0] > 1.0:
            reported[0] = time.perf_counter()
            share(done)

    sensors = Sensors()
    try:
        found = protocol.measure(
            lambda: engine(dn),
            plan,
            sensors,
            batch=len(dn),
            stream=None if stream is None else lambda ticks: stream(dn for _ in ticks),
            progress=progress,
        )
    finally:
        sensors.close()
    found.update(
        device=engine.device,
        runtime=engine.runtime,
        runtime_version=engine.version,
        threads=engine.threads,
        device_memory_bytes=engine.device_memory_bytes,
        power_mode=power_mode(),
    )
    return found, sensors.unreadable


def _layers(bundle: Path, manifest: dict[str, Any], job: dict[str, Any], dn: Any) -> list[dict[str, Any]]:
    """Profiled in an engine of its own, since profiling slows the runs down."""
    engine = _open(bundle, manifest, job, lambda _: None, profile=True)
    try:
        return engine.layers(dn, LAYER_RUNS)
    finally:
        engine.close()


def _memory_of_a_fresh_process(bundle: Path, job: dict[str, Any]) -> int:
    command = [sys.executable, sys.argv[0], "memory", str(bundle), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, timeout=600)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise RequestError(f"measuring memory failed (exit {done.returncode}): {reason}")
    return int(json.loads(done.stdout.decode())["peak_rss_bytes"])
