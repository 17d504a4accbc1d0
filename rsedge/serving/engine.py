"""The one thread that owns the loaded model. Tiles and scenes wait for it in two bounded queues; tiles go between a scene's tiles.

Runtimes are not asked by two threads at once, and a model is loaded once. What finds no place in its queue is refused at once, so
that who asks knows it and memory stays bounded. Once the golden vector is missed, nothing more is answered.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from rsedge.data.errors import IntegrityError, RsedgeError
from rsedge.flight import Bundle
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.runtimes.session import INPUT, Array, Arrays
from rsedge.serving.jobs import Job

IDLE_PROOF_S = 60.0
"""With nothing to do, a golden tile is run again after so long."""


class Watcher(Protocol):
    """What the engine tells of its work."""

    def tile(self, waited_s: float, seconds: float) -> None: ...

    def scene(self, job: Job) -> None: ...

    def failed(self, kind: str) -> None: ...


class QueueFull(Exception):
    """No place in the queue; it is worth asking again after so many seconds."""

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(f"the queue of {what} is full; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotServing(Exception):
    """The service ends, or its model is damaged."""


class _Cancelled(Exception):
    """Somebody does not want the running scene any more."""


@dataclass
class _Tile:
    dn: Array
    answer: Future[Arrays] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)


class Engine:
    """Runs tiles and scenes of one bundle; a context manager that loads the model as it begins.

    Args:
        bundle: opened, and used by nobody else meanwhile.
        tiles, scenes: places in the queues.
        idle: what is done where nothing waits, such as the next scene of a watched folder; it is given what is to be called after
            every tile, and returns the seconds until it wants to be asked again.
    """

    def __init__(
        self,
        bundle: Bundle,
        watcher: Watcher,
        tiles: int = 32,
        scenes: int = 8,
        idle: Callable[[Callable[[int, int], None]], float] | None = None,
    ) -> None:
        self.bundle, self._watcher, self._idle = bundle, watcher, idle
        self._most_tiles, self._most_scenes = tiles, scenes
        self._changed = threading.Condition()
        self._tiles: deque[_Tile] = deque()
        self._scenes: deque[Job] = deque()
        self._running: Job | None = None
        self._coming = 0
        self._ending = False
        self._scene_s, self._tests = 1.0, 0
        self.failure: str | None = None
        """Why nothing is answered any more: the golden vector was missed."""
        self.proved = time.monotonic()
        """When the golden vector was last seen to be given."""
        self._thread = threading.Thread(target=self._work, name="rsedge-engine", daemon=True)

    def __enter__(self) -> Engine:
        """Loads the model and runs its golden vector.

        Raises:
            RequestError, MissingCapability, IntegrityError: as :meth:`rsedge.runtimes.bundle.reading.Bundle.session`.
        """
        self._tests = self.bundle.session.tests  # loaded here, so that what is wrong is said at once
        self.proved = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(0.0)

    def tile(self, dn: Array) -> Future[Arrays]:
        """The answer to one input [1, C, T, T], to come.

        Raises:
            QueueFull, NotServing.
        """
        one = _Tile(dn)
        with self._changed:
            self._check()
            if len(self._tiles) >= self._most_tiles:
                raise QueueFull("tiles", 1)
            self._tiles.append(one)
            self._changed.notify()
        return one.answer

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[Job], None]]:
        """Holds a place in the queue of scenes while one is received, and gives what puts it there.

        Raises:
            QueueFull, NotServing: here, or where the service ended while the scene was received.
        """
        with self._changed:
            self._check()
            if len(self._scenes) + self._coming >= self._most_scenes:
                raise QueueFull("scenes", max(1, min(3600, round(self._scene_s))))
            self._coming += 1
        try:
            yield self._put
        finally:
            with self._changed:
                self._coming -= 1

    def _put(self, job: Job) -> None:
        with self._changed:
            self._check()
            self._scenes.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Takes a scene out of the queue, or lets it end at its next tile."""
        with self._changed:
            job.stop.set()
            if job in self._scenes:
                self._scenes.remove(job)
                job.end("cancelled")

    @property
    def waiting(self) -> dict[str, int]:
        """How many tiles and scenes wait."""
        return {"tiles": len(self._tiles), "scenes": len(self._scenes)}

    def end(self, drain_s: float) -> bool:
        """Takes nothing more, goes on with what waits for so long, then cancels it; whether everything was done."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(drain_s)
        drained = not self._thread.is_alive()
        with self._changed:
            for job in [*self._scenes, *([self._running] if self._running else [])]:
                job.stop.set()
            while self._tiles:
                _refuse(self._tiles.popleft(), "the service ends")
        if self._thread.ident is not None:
            self._thread.join()
        return drained

    def _check(self) -> None:
        if self.failure is not None:
            raise NotServing(self.failure)
        if self._ending:
            raise NotServing("the service ends")

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tiles or self._scenes or self._ending, timeout=pause)
                if self._ending and not self._tiles and not self._scenes:
                    return
                job = None if self._tiles or not self._scenes else self._scenes.popleft()
                self._running = job
            if job is not None:
                self._run(job)
            elif not self._answer_tiles():
                pause = self._rest()
            self._running = None

    def _answer_tiles(self) -> bool:
        """Answers what waits; False where nothing did."""
        some = False
        while True:
            with self._changed:
                if not self._tiles:
                    return some
                one = self._tiles.popleft()
            some = True
            if not one.answer.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            began = time.monotonic()
            try:
                found = self._ask(functools.partial(self.bundle.session, {INPUT: one.dn}))
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                one.answer.set_exception(error)
                continue
            self._watcher.tile(began - one.queued, time.monotonic() - began)
            one.answer.set_result(found)

    def _ask(self, act: Callable[[], Any]) -> Any:
        """Runs the model; a missed golden vector ends all answers."""
        if self.failure is not None:
            raise NotServing(self.failure)
        try:
            found = act()
        except SelfTestFailed as error:
            self.failure = str(error)
            self._watcher.failed("self-test")
            raise
        if self.bundle.session.tests != self._tests:
            self._tests, self.proved = self.bundle.session.tests, time.monotonic()
        return found

    def _run(self, job: Job) -> None:
        if job.stop.is_set():
            job.end("cancelled")
            return
        job.begin()

        def step(done: int, total: int) -> None:
            job.tiles_done, job.tiles = done, total
            if job.stop.is_set():
                raise _Cancelled
            self._between()
            if self.failure is not None:  # seen by one of those tiles
                raise NotServing(self.failure)

        try:
            job.record = self._ask(lambda: self.bundle.predict_into(
                job.source, job.folder, name=job.name, progress=step, warn=lambda text: None, **job.options
            ))  # fmt: skip
            job.end("done")
        except _Cancelled:
            job.end("cancelled")
        except NotServing as error:
            job.end("failed", str(error), IntegrityError.exit_code)
        except RsedgeError as error:
            self._watcher.failed("scene")
            job.end("failed", str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - one scene's fault must not end the service; it is listed
            job.end("failed", f"internal error: {type(error).__name__}; see the log", 1)
            self._internal(error)
        self._scene_s = job.seconds or self._scene_s
        self._watcher.scene(job)

    def _between(self) -> None:
        """What waits is answered between a scene's tiles."""
        if threading.current_thread() is self._thread:
            self._answer_tiles()

    def _rest(self) -> float:
        """What is done with nothing to do; seconds until the next time."""
        if self.failure is not None:
            return IDLE_PROOF_S
        try:
            if time.monotonic() - self.proved >= IDLE_PROOF_S:
                self._ask(self.bundle.session.prove)
            if self._idle is not None:
                return min(IDLE_PROOF_S, float(self._ask(lambda: self._idle(self._step))))  # type: ignore[misc]
        except (SelfTestFailed, NotServing, _Cancelled):
            pass
        except Exception as error:  # noqa: BLE001 - what goes wrong beside must not end all answers; it is in the log and counted
            self._internal(error)
        return IDLE_PROOF_S

    def _internal(self, error: Exception) -> None:
        """Counts and logs what is none of the asker's doing."""
        self._watcher.failed("internal")
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self._thread)))

    def _step(self, done: int, total: int) -> None:
        if self._ending:
            raise _Cancelled
        self._between()
        if self.failure is not None:  # seen by one of those tiles
            raise NotServing(self.failure)


def _refuse(tile: _Tile, why: str) -> None:
    if tile.answer.set_running_or_notify_cancel():
        tile.answer.set_exception(NotServing(why))
