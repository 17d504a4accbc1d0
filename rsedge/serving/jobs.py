"""Scenes that were handed in: their states, and the folder in which their files lie."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass
class Job:
    """One scene; ``folder`` is its own and goes with it.

    Attributes:
        source: what is mapped; an upload lies in ``folder``.
        options: as :meth:`rsedge.flight.Bundle.predict_into` takes them.
        record: what was written and found, once it is done.
        exit_code: that of the command that would have failed so.
    """

    id: str
    folder: Path
    source: Path
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    state: State = "queued"
    created: str = ""
    tiles_done: int = 0
    tiles: int | None = None
    began: float | None = None
    seconds: float | None = None
    error: str | None = None
    exit_code: int | None = None
    record: dict[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def output(self) -> Path | None:
        """The file that was written."""
        return None if self.record is None else Path(self.record["output"])

    def begin(self) -> None:
        self.state, self.began = "running", time.monotonic()

    def end(self, state: State, error: str | None = None, exit_code: int | None = None) -> None:
        """What became of it; its upload is no longer needed."""
        self.error, self.exit_code = error, exit_code
        self.seconds = None if self.began is None else time.monotonic() - self.began
        self.state = state
        if self.folder in self.source.parents:
            self.source.unlink(missing_ok=True)


class Jobs:
    """All jobs by id, the newest last; of those that have ended so many are kept, with their files."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[tuple[str, Path]]:
        """An id that nobody can guess, and the folder of its files, which goes where no job comes of it."""
        name = uuid.uuid4().hex
        place = self._folder / name
        place.mkdir(mode=0o700)
        try:
            yield name, place
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def add(self, job: Job) -> None:
        job.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._lock:
            self._jobs[job.id] = job
            over = [j for j in self._jobs.values() if j.ended][: -self._keep or None]
            for old in over:
                del self._jobs[old.id]
        for old in over:
            shutil.rmtree(old.folder, ignore_errors=True)

    def get(self, name: str) -> Job | None:
        with self._lock:
            return self._jobs.get(name)

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())
