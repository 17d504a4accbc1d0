"""Several processes at one piece of work, begun again where they die; none outlives the command that began them.

Each tells what it did as records of JSON through a pipe of its own. How a worker heeds signals, and that its command is gone
(:attr:`Place.alone`), is its work's affair.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError

Record = dict[str, Any]
"""What a worker tells: ``status``, and what goes with it."""
DEATHS = 3
"""In a row, with nothing told in between; then the command gives up."""
BROKEN = "broken"
"""Status of a record that says why a worker cannot go on at all."""
ENDED = 75
"""Exit code of a worker that was asked to end before it was through."""


class Ended(Exception):
    """The end was asked for while something was under way; it is done anew next time."""


@dataclass(frozen=True)
class Place:
    """A worker's place among others: which of how many it is, how it tells, and whether the command that began it is gone."""

    number: int
    count: int
    send: Callable[[Record], None]
    alone: Callable[[], bool]


Work = Callable[[Any, Place], None]
"""The job and a place; raises :class:`Ended` where it was asked to end before it was through."""


def _live(work: Work, job: Any, number: int, count: int, pipe: Connection) -> None:
    """A worker's whole life."""

    def send(record: Record) -> None:
        pipe.send_bytes(json.dumps(record, default=str).encode())

    try:
        work(job, Place(number, count, send, _alone))
    except Ended as early:
        raise SystemExit(ENDED) from early  # not through: whoever still wants it begins another one
    except RsedgeError as error:  # nothing that is left would fare better
        send({"status": BROKEN, "error": str(error), "exit_code": error.exit_code})


def _alone() -> bool:
    """Whether the process that began this one is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


@dataclass
class _Worker:
    """A process and what it sends."""

    number: int
    process: Any
    pipe: Connection


class Crew:
    """So many workers at one job; leaving the block ends them.

    ``on_death`` is called with the process that ended without a word, before another is begun in its place.
    """

    def __init__(
        self, work: Work, job: Any, count: int, name: str, on_death: Callable[[int], None] = lambda process: None
    ) -> None:
        self.work, self.job, self.count, self.name, self.on_death = work, job, count, name, on_death
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
        """What workers tell, until all are through.

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

    def news(self, seconds: float) -> Iterator[tuple[int, Record | RsedgeError | int]]:
        """What comes from workers within so long, by their numbers: what they tell, what they cannot go on for, and exit codes as
        they end. None is begun again."""
        until = time.monotonic() + seconds
        while self._workers:
            ready = wait([worker.pipe for worker in self._workers], max(0.0, until - time.monotonic()))
            if not ready:
                return
            for worker in [one for one in self._workers if one.pipe in ready]:
                try:
                    record: Record = json.loads(worker.pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    self._leave(worker)
                    yield worker.number, worker.process.exitcode
                else:
                    yield worker.number, _error(record) if record["status"] == BROKEN else record

    def _begin(self, number: int) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_live, args=(self.work, self.job, number, self.count, sender), name=f"rsedge-{self.name}-{number}"
        )
        process.start()
        sender.close()
        self._workers.append(_Worker(number, process, receiver))

    def _leave(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        worker.pipe.close()

    def _gone(self, worker: _Worker) -> None:
        self._leave(worker)
        if worker.process.exitcode == 0:
            return
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise MissingCapability(
                f"workers ended {DEATHS} times in a row without a word (the last with {worker.process.exitcode}; -9 is often a "
                "want of memory); the same command goes on where it was, with fewer --workers if need be"
            )
        self.on_death(worker.process.pid)
        self._begin(worker.number)


def _error(record: Record) -> RsedgeError:
    kinds: Sequence[type[RsedgeError]] = (RequestError, MissingCapability)
    kind = next((one for one in kinds if one.exit_code == record["exit_code"]), RsedgeError)
    return kind(record["error"])
