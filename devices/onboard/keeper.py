"""The keeper: a small process on the device that owns a job's folder, runs the job and takes the folder away.

It outlives the link. While it waits for the bundle, or with a result that nobody fetched, it removes the folder once the
``lease`` file has not been touched for ``lease_s`` seconds (of its monotonic clock, so a date that is set does no harm).
The bundle goes as soon as the job is over, the folder when a file ``stop`` appears. Locks are held on folders, so that
none is left over: one keeper per job, one measurement at a time per device folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability
from rsedge.devices.onboard.job import write_json

JOB, STATUS, PROGRESS, RESULT, ERROR = "job.json", "status.json", "progress.json", "result.json", "error.json"
STOP, LEASE, LOG, BUNDLE, UPLOAD = "stop", "lease", "log.txt", "bundle", "bundle.part"
OWN_FOLDERS = ("bench", "rsedge", ".cache")
"""Above a job's folder, where the user names no other; each goes when it is empty."""
POLL_S = 0.3


def start(folder: Path, lease_s: float) -> None:
    """Starts a keeper that outlives this process, its terminal and its connection; returns when it has begun.

    A second keeper of the same folder leaves at once.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _detach(folder / LOG, writer)
            keep(folder, lease_s, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        stream.read()


def keep(folder: Path, lease_s: float, ready: int | None = None) -> None:
    """The keeper's loop, see the module; ``ready`` is closed when it has begun."""
    with _lock(folder) as first:
        if first and not _ended(folder):
            _write_status(folder, "waiting")
        if ready is not None:
            os.close(ready)
        if first:
            _loop(folder, lease_s)


def _loop(folder: Path, lease_s: float) -> None:
    touched, since = _lease(folder), time.monotonic()
    while folder.exists() and not (folder / STOP).exists():
        if _lease(folder) != touched:
            touched, since = _lease(folder), time.monotonic()
        if time.monotonic() - since > lease_s:
            break
        if (folder / JOB).exists() and not _ended(folder):
            if (folder / RESULT).exists():  # of a keeper that was killed after its job was done
                _write_status(folder, "done")
            elif not _run_job(folder):
                break
            touched, since = _lease(folder), time.monotonic()
        time.sleep(POLL_S)
    _remove(folder)


def _run_job(folder: Path) -> bool:
    """Runs the job in a process of its own; False when it was called off."""
    with _lock(folder.parent) as free:
        if not free:
            message = f"another measurement is running in {folder.parent}; run the same command again when it is done"
            _fail(folder, message, MissingCapability.exit_code)
            return True
        command = [sys.executable, sys.argv[0], "run", str(folder)]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=homed(folder))
        _write_status(folder, "running", pid=child.pid)
        while child.poll() is None:
            if not folder.exists() or (folder / STOP).exists():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return False
            time.sleep(POLL_S)
    for name in (BUNDLE, UPLOAD):
        shutil.rmtree(str(folder / name), ignore_errors=True)
    if (folder / RESULT).exists():
        _write_status(folder, "done")
    elif (folder / ERROR).exists():
        _fail(folder, **json.loads((folder / ERROR).read_text()))
    else:
        _fail(folder, _how_it_ended(child.returncode, folder / LOG), MissingCapability.exit_code)
    return True


def homed(folder: Path) -> dict[str, str]:
    """The environment with ``folder`` as home, so that what runtimes write there (caches, usage statistics) goes with it;
    packages installed for the user are found all the same."""
    return {**os.environ, "HOME": str(folder), "PYTHONUSERBASE": site.getuserbase()}


def _how_it_ended(code: int, log: Path) -> str:
    tail = "; ".join(log.read_text(errors="replace").strip().splitlines()[-2:]) if log.exists() else ""
    if code == -signal.SIGKILL:
        what = "the device killed the measurement, most likely for want of memory"
    elif code < 0:
        what = f"the measurement died of {signal.Signals(-code).name}"
    else:
        what = f"the measurement ended with exit code {code} and no result"
    return f"{what}; its last words: {tail}" if tail else what


def _write_status(folder: Path, phase: str, **more: Any) -> None:
    with contextlib.suppress(FileNotFoundError):  # the folder was taken away
        write_json(folder / STATUS, {"phase": phase, **more})


def _fail(folder: Path, message: str, exit_code: int) -> None:
    _write_status(folder, "failed", message=message, exit_code=exit_code)


def _ended(folder: Path) -> bool:
    try:
        return json.loads((folder / STATUS).read_text())["phase"] in ("done", "failed")
    except FileNotFoundError:
        return False


def _lease(folder: Path) -> list[tuple[str, int, int]]:
    """Names, times and sizes of the lease file and of what is being sent: any change renews the lease."""
    found = []
    for path in [folder / LEASE, *sorted((folder / UPLOAD).rglob("*"))]:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((str(path), status.st_mtime_ns, status.st_size))
    return found


def _remove(folder: Path) -> None:
    """Takes the folder away, and the folders above it that we made, if nothing else is in them."""
    shutil.rmtree(str(folder), ignore_errors=True)
    for above in folder.parents:
        if above.name not in OWN_FOLDERS:
            break
        try:
            above.rmdir()
        except OSError:
            break


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Holds a folder; False where another process does."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _detach(log: Path, keep_open: int) -> None:
    """Lets go of the connection's streams, so that its end neither waits for us nor kills us."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    words = os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, target in ((0, nothing), (1, words), (2, words)):
        os.dup2(target, stream)
    for handle in (nothing, words):
        if handle > 2 and handle != keep_open:
            os.close(handle)
