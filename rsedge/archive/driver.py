"""Workers over an archive, and the sum of what they did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsedge.archive.worker import Job, work
from rsedge.crew import Crew
from rsedge.data.errors import PartlyDone
from rsedge.data.files import write_bytes
from rsedge.data.objects import address_of, is_address
from rsedge.runtimes.inference.failures import SUFFIX
from rsedge.runtimes.inference.many import DONE, FAILED, SKIPPED, Record

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


def crew_of(job: Job, workers: int) -> Crew:
    """So many workers at an archive, no more than it has scenes."""
    return Crew(work, job, max(1, min(workers, len(job.sources))), "archive")


def run(job: Job, workers: int, on_record: Callable[[Record, Sum], None]) -> Sum:
    """Maps every scene that is not mapped, and lists those that fail in :data:`DEAD_LETTERS`.

    Raises:
        RsedgeError: as :meth:`rsedge.crew.Crew.records`.
    """
    found, began = Sum(), time.monotonic()
    with crew_of(job, workers) as crew:
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


def _written(scene: str) -> str:
    """A scene as a list names it, wherever that lies."""
    return address_of(scene) if is_address(scene) else str(Path(scene).absolute())


def write_dead_letters(path: Path, failed: Sequence[Record]) -> None:
    """A list of scenes, each below a comment that says why; none where nothing failed."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    lines = [
        line
        for record in failed
        for line in (f"# {' '.join(str(record['error']).split())} ({record['tries']} tries)", _written(record["scene"]))
    ]  # fmt: skip
    write_bytes(path, ("\n".join(lines) + "\n").encode())
