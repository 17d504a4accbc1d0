"""A folder's own lock: processes that change what lies in it, and those that read it, one after the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

WAIT_S, _LOOK_S = 10.0, 0.005


@contextlib.contextmanager
def folder_lock(folder: Path, *, reading: bool = False, wait_s: float = WAIT_S) -> Iterator[bool]:
    """Has the folder to itself, or with other readers, for the block; goes on as it is where it cannot be locked.

    It goes on after ``wait_s``, too: whoever may read a folder can hold its lock, and must not stop others for good. What lies
    in it is written atomically and checked as it is read.

    Yields:
        Whether there is such a folder.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        _wait(handle, fcntl.LOCK_SH if reading else fcntl.LOCK_EX, wait_s)
        yield True
    finally:
        os.close(handle)


def _wait(handle: int, kind: int, wait_s: float) -> None:
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_LOOK_S)
        except OSError:  # a file system without locks
            return
