"""Attempts in a process of their own, so that one that ends the process or never comes back is counted and the next one goes on."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.faults.kinds import Result, all_kinds


def tried(name: str, seeds: Iterator[int]) -> Iterator[tuple[int, Result]]:
    """Attempts of the kind ``name``, one per seed, as (seed, result)."""
    limit = all_kinds()[name].seconds
    context = multiprocessing.get_context("spawn")
    worker: tuple[multiprocessing.process.BaseProcess, Connection] | None = None
    try:
        for seed in seeds:
            if worker is None:
                worker = _started(context, name)
            process, line = worker
            line.send(seed)
            result = _answer(process, line, limit, seed)
            if result.outcome == "hung" or not process.is_alive():
                _end(process)
                worker = None
            yield seed, result
    finally:
        if worker is not None:
            _end(worker[0])


def _started(
    context: multiprocessing.context.SpawnContext, name: str
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, name), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(120):
        _end(process)
        raise RuntimeError(f"faults of kind '{name}': the process that tries them did not start")
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


def _serve(line: Connection, name: str) -> None:
    attempt = all_kinds()[name].attempt
    line.send("ready")
    while True:
        seed = line.recv()
        with tempfile.TemporaryDirectory(prefix="rsedge-fault-") as folder:
            line.send(attempt(np.random.default_rng(seed), Path(folder)))


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join(10)
