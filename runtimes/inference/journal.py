"""What is finished of a scene, kept beside its output, so that a command that was killed goes on at the row of tiles it lost.

A journal is one file: the hash of its key, then records one after the other, each a checksum, a line of JSON, and the bytes it
speaks of. The key says all that an answer depends on; with another one the work starts anew. Rows count only when a self-test has
passed after them, and from the first record on that is cut or altered none counts. The outputs are written from the journal's
rows and the new ones alike, so that they are byte for byte those of a run that was never ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rsedge.runtimes.session import Array

FROM_PIXELS = 1 << 26
"""Of a scene: smaller ones are sooner done again than a journal is worth."""
_MOST_LINE, _CRC = 1 << 20, 9


@dataclasses.dataclass(frozen=True)
class Kept:
    """Finished rows of a panel: ``arrays`` [..., h, w], the first row and column, and what failed among them."""

    start: int
    col: int
    arrays: tuple[Array, ...]
    failed: list[dict[str, Any]]


class Journal:
    """An open journal; ``kept`` are the rows that earlier runs finished, in their order."""

    def __init__(self, file: BinaryIO, key: Mapping[str, Any]) -> None:
        self._file = file
        content = json.dumps(key, sort_keys=True, default=str).encode()
        self._key = hashlib.sha256(content).hexdigest().encode() + b"\n"
        self._places = self._sound()
        self._run = 1 + max((head["run"] for head, _ in self._places), default=0)
        self._end = self._places[-1][1] + self._places[-1][0]["bytes"] if self._places else len(self._key)
        self._given_up = False
        file.seek(0)
        file.truncate(self._end)
        if self._places:
            self._write({"run": self._run, "arrays": [], "tests": None}, b"")  # what is kept counts from now on
        else:
            file.write(self._key)
            file.flush()

    @property
    def rows(self) -> int:
        """How many rows of tiles are kept, over all panels."""
        return len(self._places)

    def kept(self) -> Iterator[Kept]:
        for head, place in self._places:
            self._file.seek(place)
            content, arrays = zlib.decompress(self._file.read(head["bytes"])), list[Array]()
            for dtype, shape in head["arrays"]:
                size = int(np.dtype(dtype).itemsize * np.prod(shape))
                arrays.append(np.frombuffer(content[:size], dtype).reshape(shape).copy())
                content = content[size:]
            yield Kept(head["start"], head["col"], tuple(arrays), head["failed"])

    def add(self, rows: Kept, tests: int | None) -> None:
        """Adds rows that were finished when so many self-tests had passed, None where none follow. A journal that cannot be written
        is given up: the outputs themselves tell whether there is room."""
        if self._given_up:
            return
        content = zlib.compress(b"".join(np.ascontiguousarray(a).tobytes() for a in rows.arrays), 1)
        self._write({"start": rows.start, "col": rows.col, "arrays": [(a.dtype.str, a.shape) for a in rows.arrays],
                     "run": self._run, "failed": rows.failed, "tests": tests}, content)  # fmt: skip

    def _write(self, head: Mapping[str, Any], content: bytes) -> None:
        about = json.dumps({**head, "bytes": len(content)}).encode() + b"\n"
        line = b"%08x " % zlib.crc32(about + content) + about
        try:
            self._file.seek(self._end)
            self._file.write(line + content)
            self._file.flush()
        except OSError:
            self._given_up = True
        self._end += len(line) + len(content)

    def _sound(self) -> list[tuple[dict[str, Any], int]]:
        """Heads of the records that count and where their bytes begin; none of a file of another key."""
        self._file.seek(0)
        return _counting(self._file) if self._file.readline(_MOST_LINE) == self._key else []


def _counting(file: BinaryIO) -> list[tuple[dict[str, Any], int]]:
    """Heads of the records that count, from where a file is read on, and where their bytes begin."""
    found, size = [], os.fstat(file.fileno()).st_size
    while (line := file.readline(_MOST_LINE)) and (head := _head(line)) is not None:
        place = file.tell()
        content = file.read(min(head["bytes"], size - place))
        if b"%08x " % zlib.crc32(line[_CRC:] + content) != line[:_CRC]:
            break
        found.append((head, place))
    last = max((head["run"] for head, _ in found), default=0)
    tests = max((head["tests"] or 0 for head, _ in found if head["run"] == last), default=0)
    return [(h, p) for h, p in found if h["arrays"] and (h["run"] < last or h["tests"] is None or h["tests"] < tests)]


def _head(line: bytes) -> dict[str, Any] | None:
    """What a record says of itself, not yet proven; None of a line that is none."""
    try:
        head = json.loads(line[_CRC:])
        return head if isinstance(head, dict) and int(head["bytes"]) >= 0 else None
    except (ValueError, LookupError, TypeError):
        return None


def place_of(output: Path) -> Path:
    """Where the journal of an output lies."""
    return output.with_name(f".{output.name}.rsedge-journal")


def rows_left(output: Path) -> int:
    """How many rows of tiles a command that was interrupted has left of an output for the same command."""
    try:
        with place_of(output).open("rb") as file:
            file.readline(_MOST_LINE)
            return len(_counting(file))
    except OSError:
        return 0


@contextlib.contextmanager
def journal_of(output: Path, key: Mapping[str, Any] | None) -> Iterator[Journal | None]:
    """The journal of an output, from the block's start; it goes when the block ends well or by an error, and stays where the
    process is killed or interrupted. None without a key, where another process has it, or where none can be written."""
    place = place_of(output)
    file = None if key is None else _locked(place)
    if file is None or key is None:
        yield None
        return
    with file:
        try:
            yield Journal(file, key)
        except Exception:
            place.unlink(missing_ok=True)
            raise
        place.unlink(missing_ok=True)


def _locked(place: Path) -> BinaryIO | None:
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    file = os.fdopen(handle, "r+b")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
