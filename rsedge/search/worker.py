"""One process of a search, and the command that begins several: trial after trial until there are enough."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rsedge.crew import Crew, Ended, Place, Record
from rsedge.data.errors import RsedgeError
from rsedge.data.temporary import collect_leftovers
from rsedge.search.figures import TeacherMs
from rsedge.search.study import Search, Trial, open_search
from rsedge.search.trial import run_trial
from rsedge.stopping import stoppable

LOOK_S = 0.5


@dataclass(frozen=True)
class Job:
    """What all workers of a command do.

    Attributes:
        trials: as many as there shall be in all, those of earlier commands among them.
        until: on the monotonic clock of this machine, after which no new trial is begun; None: whenever.
    """

    folder: Path
    storage: str | None
    trials: int
    until: float | None = None


def work(job: Job, place: Place) -> None:
    """A worker's whole life; a signal, or the end of its command, ends what it is at, which is gone on with next time.

    Raises:
        Ended: it was asked to.
    """
    threading.Thread(target=_watch, args=(place.alone,), name="rsedge-search-alone", daemon=True).start()
    with stoppable():
        try:
            go_through(open_search(job.folder, job.storage), job, place.send)
        except KeyboardInterrupt as asked:
            raise Ended from asked


def _watch(alone: Callable[[], bool]) -> None:
    """Ends this process once the one that began it is gone."""
    while not alone():
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def go_through(search: Search, job: Job, send: Callable[[Record], None]) -> None:
    """Trials one after the other, each told as it begins, at its steps and at its end, until none is left to begin.

    Raises:
        RequestError: the storage cannot be used. NoRoom: the disk is full.
    """
    teacher = TeacherMs()
    while True:
        begin = job.until is None or time.monotonic() < job.until
        with search.next(job.trials, begin) as trial, _last_words(trial):
            if trial is None:
                return
            number = trial.number

            def step(words: str, number: int = number) -> None:
                send({"status": "step", "number": number, "words": words})

            step("begun")
            send(run_trial(trial, teacher, step))


@contextlib.contextmanager
def _last_words(trial: Trial | None) -> Iterator[None]:
    """What a process dies of at a trial, kept with it: an error that nobody foresaw, whose traceback is told as well."""
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        if trial is not None and isinstance(error, Exception) and not isinstance(error, RsedgeError):
            trial.keep("words", " ".join(f"the process at it died: {type(error).__name__}: {error}".split()))


def run(search: Search, job: Job, workers: int) -> Iterator[Record]:
    """What workers tell until all are through.

    Raises:
        RsedgeError: as :meth:`rsedge.crew.Crew.records`.
    """
    collect_leftovers(search.folder, deep=True)
    with Crew(work, job, workers, "search", search.count_death) as crew:
        yield from crew.records()
