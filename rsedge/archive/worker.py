"""One process of several that map an archive: it claims scenes one after the other and tells what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsedge.archive.claims import claimed
from rsedge.crew import Ended, Place
from rsedge.data.errors import MissingCapability, RsedgeError
from rsedge.data.files import write_bytes
from rsedge.data.objects import address_of
from rsedge.flight import Bundle, load
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.inference.failures import SUFFIX, Failures
from rsedge.runtimes.inference.many import FAILED, Record, failure, identity
from rsedge.runtimes.inference.sources import Source
from rsedge.stopping import finishing

NAP_S = 0.5
"""Between two looks at scenes that others have."""
DIED = "the process that mapped it ended without a word (killed, or out of memory)"


@dataclass(frozen=True)
class Job:
    """What all workers of a command do.

    Attributes:
        opening: of :func:`rsedge.flight.load`, beside the bundle.
        options: of :meth:`rsedge.flight.Bundle.predict_into`.
        tries: of a scene that fails.
    """

    bundle: Path
    sources: tuple[Source, ...]
    folder: Path
    opening: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    tries: int = 3


def work(job: Job, crew: Place) -> None:
    """A worker's whole life; its first scene is apart from other workers', and it tells what becomes of each."""
    first = crew.number * len(job.sources) // crew.count
    with finishing() as asked, load(job.bundle, **job.opening) as bundle:
        bundle.tune_for_many(job.sources[0].path)
        go_through(job, bundle, first, crew.send, lambda: asked() or crew.alone())


def go_through(job: Job, bundle: Bundle, first: int, send: Callable[[Record], None], ended: Callable[[], bool]) -> None:
    """Every scene once; those that others have, and those that failed, again behind all others, until none is left.

    Raises:
        Ended: ``ended`` said so. SelfTestFailed: nothing that this model gives is worth anything.
    """
    left = [*job.sources[first:], *job.sources[:first]]
    while left:
        later = []
        for source in left:
            if ended():
                raise Ended
            record = one(job, bundle, source, ended)
            if record is not None:
                send(record)
            if record is None or record.get("retry"):
                later.append(source)
        if len(later) == len(left):
            time.sleep(NAP_S)
        left = later


def one(job: Job, bundle: Bundle, source: Source, ended: Callable[[], bool]) -> Record | None:
    """What became of a scene, as :meth:`rsedge.flight.Bundle.predict_into` says it; None where another process has it.

    One that fails has ``tries``, and ``retry`` where it is to be tried again.

    Raises:
        Ended, SelfTestFailed: as :func:`go_through`.
    """

    def step(done: int, total: int) -> None:
        if ended():
            raise Ended

    job.folder.mkdir(parents=True, exist_ok=True)
    with claimed(job.folder, source.name) as mine:
        if not mine:
            return None
        about: Record = {"scene": address_of(source.path), "name": source.name}
        under_way = job.folder / f"{source.name}.under-way"
        try:
            made_from = identity(source.path, {"bundle": bundle.opened.manifest_sha256, "settings": job.options})
        except RsedgeError as error:
            return {**about, "status": FAILED, "retry": False, "tries": 1, **failure(error)}
        failures = Failures(job.folder / f"{source.name}{SUFFIX}", made_from)
        if failures.tries >= job.tries:
            return {**about, "status": FAILED, "retry": False, **failures.known}
        try:
            if under_way.exists():
                under_way.unlink()
                raise MissingCapability(DIED)
            under_way.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(under_way, b"")
            record = bundle.predict_into(
                source.path, job.folder, name=source.name, progress=step, warn=lambda text: None, **job.options
            )
        except SelfTestFailed:
            raise
        except (RsedgeError, OSError, MemoryError) as error:
            found = failures.add(source.path, failure(error))
            return {**about, "status": FAILED, "retry": found["tries"] < job.tries, **found}
        finally:
            under_way.unlink(missing_ok=True)
        failures.clear()
        return {**about, **record}
