"""Which scenes are under way, told among processes of any number of commands by locks on one file in the folder of outputs.

A claim is a lock of one byte, at a place that the scene's name gives. The kernel takes it back when its holder ends, however it
does, so that nobody has to find out who is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

from rsedge.data.errors import MissingCapability
from rsedge.data.files import record_lock

FILE = ".rsedge-claims"
_BUSY = (BlockingIOError, PermissionError)
"""What the kernel answers where another process has the byte (EAGAIN, EACCES)."""


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Within the block the scene of this name belongs to this process; False where it is another's.

    Raises:
        MissingCapability: the file system has no such locks.
    """
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    with (folder / FILE).open("a+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, record_lock(fcntl.F_WRLCK, place, 1))
        except _BUSY:
            yield False
            return
        except OSError as error:
            raise MissingCapability(
                f"{folder}: its file system has no locks ({error.strerror}), by which processes share scenes; write to another "
                "one, or use `rsedge infer --output-dir`, one command at a time"
            ) from error
        yield True
