"""Peak memory of one artefact, measured in a fresh process that does nothing but load and run it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.devices.onboard.memory import high_water_bytes

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

_PR_SET_PDEATHSIG = 1


def peak_rss(
    model_path: str | Path,
    runtime: str,
    *,
    device: str = "cpu",
    precision: str = "f32",
    threads: int | None = None,
    runs: int = 3,
    timeout: float = 300.0,
) -> int:
    """Peak resident memory (bytes) of a process that opens ``model_path`` with ``runtime`` and runs it ``runs`` times.

    It includes the interpreter and the runtime's own libraries, as it will on board.

    Raises:
        RequestError: the file is missing or cannot be opened.
        MissingCapability: the runtime is not installed, or the process was killed or timed out.
    """
    if not Path(model_path).exists():
        raise RequestError(f"{model_path}: no such file")
    job: dict[str, Any] = {"model": str(model_path), "runtime": runtime, "runs": runs}
    job["options"] = {"device": device, "precision": precision, "threads": threads}
    return _in_a_fresh_process(job, f"{model_path}: measuring memory with {runtime}", timeout)


def bundle_peak_rss(
    path: str | Path, key: str | Path | None, threads: int | None = None, *, runs: int = 3, timeout: float = 300.0
) -> int:
    """As :func:`peak_rss`, for what runs of a bundle on this machine, opened and checked as on board.

    Raises:
        RequestError, MissingCapability: as there.
    """
    job = {"bundle": str(path), "key": None if key is None else str(key), "threads": threads, "runs": runs}
    return _in_a_fresh_process(job, f"{path}: measuring memory", timeout)


def _in_a_fresh_process(job: dict[str, Any], what: str, timeout: float) -> int:
    command = [sys.executable, "-m", "rsedge.devices.measure.rss", json.dumps({**job, "parent": os.getpid()})]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise MissingCapability(f"{what} took longer than {timeout:.0f} s") from error
    if done.returncode == 0:
        return int(json.loads(done.stdout.strip().splitlines()[-1])["peak_rss_bytes"])
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    kind = RequestError if done.returncode == RequestError.exit_code else MissingCapability
    raise kind(f"{what} failed (exit {done.returncode}): {reason}")


def _end_with(parent: int) -> None:
    """Lets the kernel kill this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            sys.exit(1)


def _load_and_run(job: dict[str, Any]) -> int:
    with contextlib.ExitStack() as stack:
        if "bundle" in job:
            from rsedge.runtimes.bundle.reading import Bundle

            bundle = stack.enter_context(Bundle.open(job["bundle"], job["key"]))
            if bundle.manifest.parts is not None:
                _run_whole(bundle, job)
                return high_water_bytes()
            session = bundle.session(job["threads"])
        else:
            from rsedge.runtimes.opening import open_session

            session = open_session(job["model"], job["runtime"], **job["options"])
        spec = session.input_spec
        dn = np.ones((1, *spec.shape), dtype=spec.dtype)
        for _ in range(job["runs"]):
            session({"dn": dn})
        session.close()
    return high_water_bytes()


def _run_whole(bundle: Bundle, job: dict[str, Any]) -> None:
    from rsedge.runtimes.bundle.whole import golden_sample, open_whole

    sample = golden_sample(bundle)[0]
    with open_whole(bundle, job["threads"], every=0) as whole:
        for _ in range(job["runs"]):
            whole(sample)


def main(argument: str) -> int:
    """Runs one job given as JSON; prints ``{"peak_rss_bytes": n}``; returns the exit code."""
    try:
        job = json.loads(argument)
        _end_with(job["parent"])
        peak = _load_and_run(job)
    except RsedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"peak_rss_bytes": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
