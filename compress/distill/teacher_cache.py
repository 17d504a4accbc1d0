"""A teacher's outputs on a set of views, kept on disk for whoever asks the same of it again: other students, other runs.

A set has an address: the hash of all that its views and outputs depend on. Its folder holds ``set.json`` (what a record is) and
shards, each a file of as many records as fit :data:`SHARD_BYTES`, and no more than :data:`SHARD_VIEWS`; a record is a view in
digital numbers with the outputs on it. A shard is put in place whole, so that a kill loses no more than one. Several processes
make one set together, each the shards that no other is at; a set that holds fewer views than are asked for grows. Nothing is
mapped into memory: a batch reads its own records.

Sets that nobody uses go, the longest unused first, where all would take more than :data:`MOST_BYTES`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.compress.distill.codings import Coding, Field, Floats, record_of
from rsedge.data import kept_folders
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, read_json
from rsedge.data.kept_folders import hold

Dn = npt.NDArray[np.generic]
Outputs = dict[str, Floats]
VARIABLE = "RSEDGE_TEACHER_CACHE"
"""Names the folder of all sets, where that is not in the user's cache folder."""
SHARD_BYTES, SHARD_VIEWS = 1 << 25, 256
MOST_BYTES = 20 << 30
_SET, _VIEW, _LOOK_S = "set.json", "view", 0.2


@dataclass(frozen=True)
class Record:
    """What is kept of one view: its digital numbers of this shape and dtype, and every output by its coding."""

    shape: tuple[int, ...]
    dtype: str
    codings: dict[str, Coding]

    @cached_property
    def of(self) -> np.dtype[Any]:
        first: Field = (_VIEW, self.dtype, self.shape)
        return record_of(self.codings, first)

    @property
    def views_a_shard(self) -> int:
        return max(1, min(SHARD_VIEWS, SHARD_BYTES // self.of.itemsize))

    def pack(self, dn: Dn, outputs: Outputs) -> npt.NDArray[np.void]:
        """Views (N, *shape) and outputs on them as N records."""
        records = np.zeros(len(dn), self.of)
        records[_VIEW] = dn
        for name, coding in self.codings.items():
            coding.write(name, outputs[name], records)
        return records

    def unpack(self, records: npt.NDArray[np.void]) -> tuple[Dn, Outputs]:
        """The reverse, as exactly as outputs are kept."""
        return np.ascontiguousarray(records[_VIEW]), {n: c.read(n, records) for n, c in self.codings.items()}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> Record:
        codings = {n: Coding(**{**c, "shape": tuple(c["shape"])}) for n, c in value["codings"].items()}
        return cls(tuple(value["shape"]), value["dtype"], codings)


def kept_in(folder: Path) -> Record | None:
    """What records of the set in a folder are; None where there is none."""
    return Record.of_json(read_json(folder / _SET)) if (folder / _SET).is_file() else None


class TeacherCache:
    """The set of one address. While the object lives, its folder is in use and stays."""

    def __init__(self, folder: Path, record: Record) -> None:
        """Opens the set in ``folder``, or begins it with records such as ``record``: a set that is there keeps its own.

        Raises:
            RequestError, MissingCapability: nothing can be written there.
        """
        self.folder = folder
        self._held = hold(folder)
        weakref.finalize(self, os.close, self._held)
        if not (folder / _SET).is_file():
            with contextlib.suppress(RequestError), atomic_path(folder / _SET, replace=False) as path:
                path.write_text(json.dumps(asdict(record)))
        found = kept_in(folder)
        if found is None:
            raise RequestError(f"{folder}: the set of teacher's outputs there went while it was opened; run again")
        self.record = found
        with contextlib.suppress(OSError):  # not ours, or on a disk that is read only
            os.utime(folder / _SET)

    # -- what is there ----------------------------------------------------------------------------------------------
    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}.records"

    def _rows(self, number: int) -> int:
        """Records of a shard; none of one that is not there, or of other records."""
        try:
            rows, rest = divmod(self._shard(number).stat().st_size, self.record.of.itemsize)
        except FileNotFoundError:
            return 0
        return 0 if rest else rows

    def _needed(self, count: int) -> list[tuple[int, int]]:
        """Numbers of the shards that ``count`` views need, and how many records of each."""
        size = self.record.views_a_shard
        return [(n, min(size, count - n * size)) for n in range(-(-count // size))]

    def missing(self, count: int) -> int:
        """How many of the first ``count`` views are not there yet."""
        return sum(max(0, rows - self._rows(number)) for number, rows in self._needed(count))

    def rows(self, indices: Sequence[int]) -> tuple[Dn, Outputs]:
        """Views and outputs of these numbers.

        Raises:
            RequestError: one of them is not there (any more).
        """
        size, one = self.record.views_a_shard, self.record.of
        records = np.empty(len(indices), one)
        for place, index in enumerate(indices):
            number, row = divmod(index, size)
            try:
                records[place] = np.fromfile(self._shard(number), one, 1, offset=row * one.itemsize)[0]
            except (OSError, IndexError) as error:
                raise RequestError(
                    f"{self._shard(number)}: view {index} of the teacher's outputs cannot be read; run again to make it"
                ) from error
        return self.record.unpack(records)

    # -- making it --------------------------------------------------------------------------------------------------
    def fill(
        self,
        count: int,
        draw: Callable[[Sequence[int]], Iterator[npt.NDArray[np.void]]],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Makes what is missing of ``count`` views, beside other processes that do the same.

        Args:
            draw: numbers of views -> their records, some at a time, in order.
            progress: called with the views that are there and ``count``.
        """
        while waiting := [(n, rows) for n, rows in self._needed(count) if self._rows(n) < rows]:
            worked = False
            for number, rows in waiting:
                with _claim(self.folder / f"{number:06d}.claim") as ours:
                    if ours and self._rows(number) < rows:
                        self._make(number, rows, draw, progress, count)
                    worked |= ours
            if not worked:
                time.sleep(_LOOK_S)

    def _make(
        self,
        number: int,
        rows: int,
        draw: Callable[[Sequence[int]], Iterator[npt.NDArray[np.void]]],
        progress: Callable[[int, int], None] | None,
        count: int,
    ) -> None:
        begin, there = number * self.record.views_a_shard, self._rows(number)
        done = count - self.missing(count)
        with atomic_path(self._shard(number)) as path, path.open("wb") as f:
            if there:
                np.fromfile(self._shard(number), self.record.of, there).tofile(f)
            for records in draw(range(begin + there, begin + rows)):
                records.tofile(f)
                done += len(records)
                if progress:
                    progress(min(done, count), count)


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Whether no other process is at this shard; while the block runs, this one is."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def make_room(store: Path, keep: Path, need: int, most: int = MOST_BYTES) -> None:
    """Removes sets that nobody uses, the longest unused first, until ``need`` bytes more fit within ``most`` and on the disk.

    Raises:
        MissingCapability: the disk has not that much room even then.
    """
    mend = f"set {VARIABLE} to a folder on another disk, or lower steps.distill.views"
    kept_folders.make_room(store, _SET, keep, need, most, f"the teacher's outputs lie there: {mend}")


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Items, ``size`` at a time."""
    while chunk := list(itertools.islice(items, size)):
        yield chunk
