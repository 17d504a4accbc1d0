"""A folder into which scenes come: each that is complete is mapped once, and what fails is listed and left alone after some tries.

What is done is known by the record beside its output (:mod:`rsedge.runtimes.inference.many`), what failed by ``NAME.failed.json``
there; so a restart does nothing twice. A file is complete when its size and time have not changed for a while and its name is none
that programs give to what they are still writing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError, RsedgeError
from rsedge.data.scenes.kinds import kind_of
from rsedge.flight import Bundle
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.inference.failures import SUFFIX, Failures
from rsedge.runtimes.inference.many import FAILED, Record, failure, identity
from rsedge.runtimes.inference.sources import Source, sources
from rsedge.runtimes.inference.works.table import taken

PARTIAL = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".download", ".incomplete")
"""Ends of names that downloads and copies have until they are complete, before or behind the suffix."""
FIRST_WAIT_S, LONGEST_WAIT_S = 30.0, 3600.0
"""After a failure; four times as long after each further one."""
WAITING = "waiting"
Stamp = tuple[tuple[str, int, int], ...]


@dataclass
class Rules:
    """When a scene is complete, and how often one that fails is tried.

    Attributes:
        settle_s: a file is complete once it has not changed for so long.
        every_s: between two looks at the folder.
        tries: of a scene that fails.
    """

    settle_s: float = 2.0
    every_s: float = 2.0
    tries: int = 3


@dataclass
class FolderWatch:
    """Maps what comes into ``folder`` into ``outputs``; not for several threads at once.

    Attributes:
        options: as :meth:`rsedge.flight.Bundle.predict_into` takes them.
        on_scene: called with each scene's record, as ``rsedge infer --output-dir`` lists them; of a failure with ``tries`` and
            ``retry``; with the status ``waiting`` and the reason where the folder gives no scenes, or two of one name.
    """

    bundle: Bundle
    folder: Path
    outputs: Path
    rules: Rules = field(default_factory=Rules)
    options: dict[str, Any] = field(default_factory=dict)
    on_scene: Callable[[Record], None] = lambda record: None
    clock: Callable[[], float] = time.monotonic
    _changing: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _handled: dict[Path, Stamp] = field(default_factory=dict)
    _later: dict[Path, float] = field(default_factory=dict)
    _waits: set[str] = field(default_factory=set)

    def step(self, progress: Callable[[int, int], None] = lambda done, total: None) -> float:
        """Does one scene that is complete; seconds until it is worth asking again, 0 where more wait.

        Raises:
            SelfTestFailed: nothing that this model gives is worth anything. What ``progress`` raises.
        """
        ready = self.ready()
        if not ready:
            return self.rules.every_s
        source, stamp = ready[0]
        self._later.pop(source.path, None)
        self._do(source, progress)
        if source.path not in self._later:
            self._handled[source.path] = stamp
        return 0.0 if len(ready) > 1 else self.rules.every_s

    def ready(self) -> list[tuple[Source, Stamp]]:
        """Scenes that are complete and not done, with what their files are now."""
        now, found, seen = self.clock(), [], set()
        for source in self._scenes():
            stamp = _stamp(source.path)
            if stamp is None or _partial(source.path):
                continue
            seen.add(source.path)
            before, since = self._changing.get(source.path, (None, now))
            if before != stamp:
                self._changing[source.path] = (stamp, now)
                self._later.pop(source.path, None)
                since = now
            waits = now - since < self.rules.settle_s or self._later.get(source.path, 0.0) > now
            if not waits and self._handled.get(source.path) != stamp:
                found.append((source, stamp))
        for known in (self._changing, self._handled, self._later):
            for gone in set(known) - seen:
                del known[gone]
        return found

    def settling(self) -> bool:
        """Whether a scene is there that is not complete yet, or waits to be tried again."""
        now = self.clock()
        fresh = any(now - since < self.rules.settle_s for _, since in self._changing.values())
        return fresh or bool(self._later)

    def _scenes(self) -> list[Source]:
        """What lies in the folder, but scenes whose outputs would have one name, until one of them goes."""
        waits: list[RequestError] = []
        try:
            found = sources([self.folder], taken(self.bundle.manifest), [self.outputs], on_clash=waits.append)
        except RequestError as error:  # such as an empty folder
            found, waits = [], [error]
        reasons = {str(error) for error in waits}
        for reason in sorted(reasons - self._waits):
            self.on_scene({"status": WAITING, "scene": str(self.folder), "error": reason})
        self._waits = reasons
        return found

    def _do(self, source: Source, progress: Callable[[int, int], None]) -> None:
        try:
            made_from = identity(source.path, {"bundle": self.bundle.opened.manifest_sha256, "settings": self.options})
        except RequestError:  # gone meanwhile
            return
        failures = Failures(self.outputs / f"{source.name}{SUFFIX}", made_from)
        if failures.tries >= self.rules.tries:
            self.on_scene({"status": FAILED, "scene": str(source.path), "retry": False, **failures.known})
            return
        try:
            record = self.bundle.predict_into(
                source.path, self.outputs, name=source.name, progress=progress, warn=lambda text: None, **self.options
            )
        except SelfTestFailed:
            raise
        except (RsedgeError, OSError, MemoryError) as error:
            self._failed(source, failures, error)
            return
        failures.clear()
        self.on_scene(record)

    def _failed(self, source: Source, failures: Failures, error: Exception) -> None:
        about = failures.add(source.path, failure(error))
        again = about["tries"] < self.rules.tries
        if again:
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 4 ** (about["tries"] - 1))
            self._later[source.path] = self.clock() + wait
        self.on_scene({"status": FAILED, "scene": str(source.path), "retry": again, **about})


def _stamp(path: Path) -> Stamp | None:
    """Names, sizes and times of a scene's files; None where one is not there, or empty."""
    try:
        found = [(file.name, file.stat()) for file in kind_of(path).files(path)]
    except (OSError, RequestError):
        return None
    return tuple((name, s.st_size, s.st_mtime_ns) for name, s in found) if all(s.st_size for _, s in found) else None


def _partial(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(("~", ".")) or any(name.endswith(end) or path.stem.lower().endswith(end) for end in PARTIAL)
