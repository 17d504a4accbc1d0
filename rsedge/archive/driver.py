"""Workers over an archive, begun again where they die, and the sum of what they did."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rsedge.archive.worker import BROKEN, Job, work
from rsedge.data.errors import MissingCapability, PartlyDone, RequestError, RsedgeError
from rsedge.data.files import write_bytes
from rsedge.runtimes.inference.failures import SUFFIX
from rsedge.runtimes.inference.many import DONE, FAILED, SKIPPED, Record

DEATHS = 3
"""In a row, with nothing told in between; then the command gives up."""
DEAD_LETTERS = "failed.txt"
"""In the folder of outputs: scenes that are left alone, as a list of paths, each below the reason."""


@dataclass
class Sum:
    """What became of every scene, by name, and the seconds that each took which was mapped now."""

    scenes: dict[str, Record] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    def take(self, record: Record) -> None:
        """A scene that was mapped stays so, whoever looks at it once more."""
        if record["status"] == DONE:
            self.seconds.append(float(record.get("seconds", 0.0)))
        if self.scenes.get(record["name"], {}).get("status") != DONE:
            self.scenes[record["name"]] = record

    def count(self, status: str) -> int:
        return Counter(record["status"] for record in self.scenes.values())[status]

    @property
    def settled(self) -> int:
        """Scenes that nothing more is done with."""
        return sum(not record.get("retry") for record in self.scenes.values())

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.scenes.values() if record["status"] == FAILED]

    def record(self) -> Record:
        """As ``--json`` prints it: ``done``, ``skipped``, ``failed`` (numbers), ``failures`` (their records), ``wall_s``,
        ``scenes_per_hour`` (of those mapped now; None where none was), ``exit_code``."""
        failed, done = self.failed, self.count(DONE)
        rate = round(3600 * done / self.wall_s, 3) if done and self.wall_s else None
        return {
            DONE: done, SKIPPED: self.count(SKIPPED), FAILED: len(failed), "failures": failed, "wall_s": round(self.wall_s, 3),
            "scenes_per_hour": rate, "exit_code": PartlyDone.exit_code if failed else 0,
        }  # fmt: skip


@dataclass
class _Worker:
    """A process and what it sends."""

    number: int
    process: Any
    pipe: Connection


class Crew:
    """So many workers at one job; leaving the block ends them."""

    def __init__(self, job: Job, workers: int) -> None:
        self.job, self.count = job, max(1, min(workers, len(job.sources)))
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._deaths = 0

    def __enter__(self) -> Crew:
        for number in range(self.count):
            self._begin(number)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    @property
    def processes(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def records(self) -> Iterator[Record]:
        """Of scenes, as workers tell them, until all are through.

        Raises:
            MissingCapability: workers die without doing anything. What a worker cannot go on for.
        """
        while self._workers:
            for pipe in wait([worker.pipe for worker in self._workers]):
                worker = next(one for one in self._workers if one.pipe is pipe)
                try:
                    record: Record = json.loads(worker.pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    self._gone(worker)
                    continue
                if record["status"] == BROKEN:
                    raise _error(record)
                self._deaths = 0
                yield record

    def _begin(self, number: int) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        first = number * len(self.job.sources) // self.count
        process = self._context.Process(target=work, args=(self.job, first, sender), name=f"rsedge-archive-{number}")
        process.start()
        sender.close()
        self._workers.append(_Worker(number, process, receiver))

    def _gone(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        worker.pipe.close()
        if worker.process.exitcode == 0:
            return
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise MissingCapability(
                f"workers ended {DEATHS} times in a row without a word (the last with {worker.process.exitcode}; -9 is often a "
                "want of memory); the same command goes on where it was, with fewer --workers if need be"
            )
        self._begin(worker.number)


def _error(record: Record) -> RsedgeError:
    kinds: Sequence[type[RsedgeError]] = (RequestError, MissingCapability)
    kind = next((one for one in kinds if one.exit_code == record["exit_code"]), RsedgeError)
    return kind(record["error"])


def run(job: Job, workers: int, on_record: Callable[[Record, Sum], None]) -> Sum:
    """Maps every scene that is not mapped, and lists those that fail in :data:`DEAD_LETTERS`.

    Raises:
        RsedgeError: as :meth:`Crew.records`.
    """
    found, began = Sum(), time.monotonic()
    with Crew(job, workers) as crew:
        for record in crew.records():
            found.take(record)
            found.wall_s = time.monotonic() - began
            on_record(record, found)
    write_dead_letters(job.folder / DEAD_LETTERS, found.failed)
    return found


def forget(job: Job) -> None:
    """Scenes that were left alone count as not tried."""
    for source in job.sources:
        (job.folder / f"{source.name}{SUFFIX}").unlink(missing_ok=True)


def write_dead_letters(path: Path, failed: Sequence[Record]) -> None:
    """A list of scenes, each below a comment that says why; none where nothing failed."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    lines = [
        line
        for record in failed
        for line in (f"# {' '.join(str(record['error']).split())} ({record['tries']} tries)", str(Path(record["scene"]).absolute()))
    ]  # fmt: skip
    write_bytes(path, ("\n".join(lines) + "\n").encode())
