"""The record of one run over a scene: where its time went, which tiles ran, which were left out and which failed."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.runtimes.cores import cpu_count

STAGES = ("read", "preprocess", "infer", "blend", "compress", "write", "check")
"""``read``: the file's blocks, unpacked; ``preprocess``: masks and digital numbers, cut into tiles; ``infer``: the model, with the
self-test's tiles; ``blend``; ``compress``: the outputs' blocks, handed to the system; ``write``: bringing them to the disk;
``check``: reading them back."""
MOST_LISTED = 100
Tile = TypeVar("Tile")
_MOST_WORDS = 300


@dataclasses.dataclass(frozen=True)
class FailedTile:
    """A tile without an answer, by the row and column of its first pixel, and why."""

    row: int
    col: int
    why: str


class SceneRun:
    """Counts as a scene is mapped; each stage's seconds are processor seconds of the thread that does it.

    Attributes:
        every: tiles of the scene, or of what was left of it. tiles: those that ran; the others show nothing but nodata.
        kept_rows: rows of tiles that a run before this one had finished.
    """

    def __init__(self, strict: bool = False) -> None:
        """Args:
        strict: a tile without an answer is an error, as where nobody would read of it.
        """
        self.every = self.tiles = self.kept_rows = 0
        self._strict, self._failures = strict, 0
        self._failed: dict[tuple[int, int], FailedTile] = {}
        self._first_error: RsedgeError | None = None
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._wall, self._processor = time.perf_counter(), time.process_time()

    @property
    def failed(self) -> list[FailedTile]:
        """Tiles without an answer, each once: those at a panel's edge, and beside rows that are kept, run twice."""
        return list(self._failed.values())

    @contextlib.contextmanager
    def stage(self, name: str, alone: bool = False) -> Iterator[None]:
        """Counts what this thread works inside as of a stage; ``alone``: all that the process works, where nothing else goes on."""
        clock = time.process_time if alone else time.thread_time
        began = clock()
        try:
            yield
        finally:
            self._seconds[name] += clock() - began

    @contextlib.contextmanager
    def reading(self, reader: object) -> Iterator[None]:
        """Counts what this thread works inside as ``read``, as far as the reader says so, and else as ``preprocess``."""
        began, unpacked = time.thread_time(), getattr(reader, "unpacking_s", 0.0)
        try:
            yield
        finally:
            unpacked = getattr(reader, "unpacking_s", 0.0) - unpacked
            self._seconds["read"] += unpacked
            self._seconds["preprocess"] += time.thread_time() - began - unpacked

    def reads(self, tiles: Iterator[Tile], reader: object) -> Iterator[Tile]:
        """Tiles as they come, the time that each takes counted by :meth:`reading`."""
        while True:
            with self.reading(reader):
                found = next(tiles, None)
            if found is None:
                return
            yield found

    def fail(self, row: int, col: int, error: Exception) -> RsedgeError:
        """Tells of a tile without an answer; gives the error as one of ours.

        Raises:
            RsedgeError: that error, where the run is strict.
        """
        found = error if isinstance(error, RsedgeError) else _of_runtime(row, col, error)
        if self._strict:
            raise found
        self._first_error = self._first_error or found
        self._failures += 1
        self._add(FailedTile(row, col, _words(error)))
        return found

    def _add(self, tile: FailedTile) -> None:
        self._failed.setdefault((tile.row, tile.col), tile)

    def take(self, failed: Sequence[dict[str, Any]]) -> None:
        """Takes over a row of tiles of a run before this one, and what failed in it."""
        self.kept_rows += 1
        for tile in failed:
            self._add(FailedTile(**tile))

    def check_any(self, path: Path, screened: bool = False) -> None:
        """Raises:
        RsedgeError: no tile has an answer; the first tile's error, or that the whole scene is nodata. Where a
            filter spared tiles (``screened``) it may be that none was left.
        """
        if not self.tiles and not screened:
            raise RequestError(f"{path}: every pixel is nodata, there is nothing to look at")
        if self._first_error is not None and self._failures == self.tiles:
            raise self._first_error

    def lost(self) -> dict[str, Any]:
        """``failed_tiles``, the first of ``failed_tiles_count``."""
        failed = self.failed
        return {
            "failed_tiles": [dataclasses.asdict(tile) for tile in failed[:MOST_LISTED]],
            "failed_tiles_count": len(failed),
        }

    def record(self, device: str = "CPU") -> dict[str, Any]:
        """``seconds`` of each of :data:`STAGES`, ``wall_s``, ``processor_s``, ``cores``, ``over_inference``, ``tiles``,
        ``skipped_tiles``, ``kept_rows``, ``failed_tiles`` (the first of ``failed_tiles_count``), ``peak_memory_mb``.

        On a processor ``infer`` is what remains of the processor seconds of this process, and ``over_inference`` how many times
        longer the run took than that would have alone, spread over the cores; elsewhere both are unknown and None.
        """
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        seconds: dict[str, float | None] = {name: round(value, 3) for name, value in self._seconds.items()}
        on_cpu = "CPU" in device.upper()
        infer = max(processor - sum(self._seconds.values()), 0.0) if on_cpu else None
        seconds["infer"] = None if infer is None else round(infer, 3)
        return {
            "seconds": seconds,
            "wall_s": round(wall, 3),
            "processor_s": round(processor, 3),
            "cores": cpu_count(),
            "over_inference": round(wall * cpu_count() / infer, 3) if infer else None,
            "tiles": self.tiles,
            "skipped_tiles": self.every - self.tiles,
            "kept_rows": self.kept_rows,
            **self.lost(),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST_WORDS]


def _of_runtime(row: int, col: int, error: Exception) -> RsedgeError:
    found = MissingCapability(
        f"the runtime fails on the tile at row {row}, column {col} ({_words(error)}); check the bundle with `rsedge verify`, or "
        "give another --device"
    )
    found.__cause__ = error
    return found


def warning_of(run: SceneRun) -> str | None:
    """What is said of tiles without an answer where no record is kept; None where there are none."""
    if not run.failed:
        return None
    first = run.failed[0]
    return (
        f"{len(run.failed)} of {run.tiles} tiles FAILED and have no answer; the first, at row {first.row}, column {first.col}: "
        f"{first.why}"
    )


def text_of(record: dict[str, Any]) -> str:
    """The record in a line, for a terminal."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in record["seconds"].items() if value is not None)
    over = record["over_inference"]
    ratio = "" if over is None else f"; {over:.2f} times inference alone"
    lost, kept = record["failed_tiles_count"], record["kept_rows"]
    failed = f"; {lost} tiles FAILED and have no answer" if lost else ""
    before = f"; {kept:,} rows of tiles kept from a run that was ended" if kept else ""
    return (
        f"{record['tiles']:,} tiles, {record['skipped_tiles']:,} skipped{failed}{before}; processor seconds: {parts}{ratio}; "
        f"{record['peak_memory_mb']:.0f} MB at most{_energy_text(record)}"
    )


def _energy_text(record: dict[str, Any]) -> str:
    """What whoever holds the sensors added to the record."""
    found, throttled = record.get("energy"), record.get("throttled") or []
    energy = "" if found is None else f"; {found['joules']:.1f} J of the machine ({found['covers']})"
    return energy + (f"; held itself back: {', '.join(throttled)}" if throttled else "")
