"""Attempts in a process of their own, so that one that ends the process or never comes back is counted and the next one goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.faults.kinds import Result, all_kinds


class Worker:
    """A process that tries faults, started when it is first asked and anew when an attempt has ended it."""

    def __init__(self) -> None:
        # Its temporary files lie here, since it is ended by a signal and clears up nothing.
        self._folder = tempfile.TemporaryDirectory(prefix="rsedge-faults-", ignore_cleanup_errors=True)
        self._running: tuple[multiprocessing.process.BaseProcess, Connection] | None = None

    def attempt(self, name: str, seed: int) -> Result:
        """What comes of one attempt of the kind ``name``."""
        if self._running is None:
            self._running = _started(self._folder.name)
        process, line = self._running
        line.send((name, seed))
        result = _answer(process, line, all_kinds()[name].seconds, seed)
        if result.outcome == "hung" or not process.is_alive():
            self.close()
        return result

    def close(self) -> None:
        """Ends the process and removes what it left."""
        if self._running is not None:
            process, line = self._running
            process.kill()
            process.join(10)
            line.close()
            self._running = None
            for left in Path(self._folder.name).iterdir():
                shutil.rmtree(left, ignore_errors=True)


def tried(name: str, seeds: Iterable[int], worker: Worker | None = None) -> Iterator[tuple[int, Result]]:
    """Attempts of the kind ``name``, one per seed, as (seed, result); in ``worker``, which stays, or in one of their own."""
    with contextlib.ExitStack() as stack:
        own = worker or stack.enter_context(contextlib.closing(Worker()))
        for seed in seeds:
            yield seed, own.attempt(name, seed)


def _started(folder: str) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(120):
        process.kill()
        raise RuntimeError("the process that tries faults did not start")
    ours.recv()
    return process, ours


def _answer(process: multiprocessing.process.BaseProcess, line: Connection, limit: float, seed: int) -> Result:
    try:
        if line.poll(limit):
            found: Result = line.recv()
            return found
    except (EOFError, ConnectionResetError):
        process.join(5)
        code = process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Result("crashed", f"seed {seed}", f"the process ended: {how}")
    return Result("hung", f"seed {seed}", f"no answer in {limit:.0f} s")


def _serve(line: Connection, place: str) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = place
    kinds = all_kinds()
    line.send("ready")
    while True:
        name, seed = line.recv()
        with tempfile.TemporaryDirectory(prefix="rsedge-fault-") as folder, _as_it_was():
            result = kinds[name].attempt(np.random.default_rng(seed), Path(folder))
        line.send(result)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Puts the working folder and the limit of memory back, which kinds may change."""
    before, limits = Path.cwd(), resource.getrlimit(resource.RLIMIT_AS)
    yield
    os.chdir(before)
    resource.setrlimit(resource.RLIMIT_AS, limits)
