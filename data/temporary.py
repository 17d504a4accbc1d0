"""Temporary folders whose leftovers go by themselves: one that a killed process left is known by its free lock.

A folder ``.rsedge-*`` holds a file ``lock``, locked as long as its process lives, and ``in``, which is worked in. The kernel
frees the lock however the process ends (``kill -9``, a power cut), and sees it across containers, as process numbers are not.
Whoever next works beside it finds the lock free and removes the folder; one without a lock file is nobody's proof of anything
and stays, unless it is empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

from rsedge.data.errors import MissingCapability

_PREFIX, _LOCK, _CONTENT = ".rsedge-", "lock", "in"
_TRIES, _NO_LOCK = 100, -1
_looked_at: set[str] = set()


class TemporaryFolder:
    """A folder that is gone after the block, at the latest with its process or at the next start.

    Attributes:
        path: the folder to work in; it lies on the disk of the folder it was made in, so that files can be renamed out of it.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        """Makes it inside ``parent`` (default: the system's temporary folder) and removes there what killed processes left.

        Raises:
            OSError: nothing can be made there. MissingCapability: the system has no temporary folder that can be written.
        """
        place = _system_folder() if parent is None else Path(parent)
        if (known := os.path.realpath(place)) not in _looked_at:
            _looked_at.add(known)
            collect_leftovers(place)
        for _ in range(_TRIES):
            made = _Made(place / f"{_PREFIX}{secrets.token_hex(8)}")
            # Before it is there: an interruption may come at any moment.
            self._end = weakref.finalize(self, made.remove)
            if made.make():
                break
            self._end()
        else:
            raise OSError(f"{place}: no temporary folder could be made, others remove it at once")
        self.path = made.root / _CONTENT

    def cleanup(self) -> None:
        """Removes it; a second call does nothing."""
        self._end()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()


def _system_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise MissingCapability(
            "this machine has no temporary folder that can be written; name one: TMPDIR=/a/folder rsedge ..."
        ) from error


def collect_leftovers(folder: str | Path, deep: bool = False) -> int:
    """Removes temporary folders of processes that have ended; those in use, and other users', stay.

    Args:
        folder: where they lie.
        deep: in all folders inside it too.

    Returns:
        How many were removed.
    """
    found = [f for f in _folders(Path(folder), deep) if f.name.startswith(_PREFIX)]
    return sum(_collected(root) for root in found)


def _folders(folder: Path, deep: bool) -> list[Path]:
    found: list[Path] = []
    for place, inside, _ in os.walk(folder):
        found += [Path(place) / name for name in inside]
        inside[:] = [name for name in inside if deep and not name.startswith(_PREFIX)]
    return found


class _Made:
    """A folder of this process and its lock; none on a file system without locks, whose leftovers nobody collects."""

    def __init__(self, root: Path) -> None:
        self.root, self.lock = root, _NO_LOCK

    def make(self) -> bool:
        """Whether it could be made; other processes may take it for a leftover as long as it is not locked."""
        self.root.mkdir(mode=0o700)
        place = self.root / _LOCK
        try:
            self.lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            return False
        except OSError:
            if self.lock == _NO_LOCK:
                raise
            place.unlink()
        else:
            if not _is(self.lock, place):
                return False
        (self.root / _CONTENT).mkdir()
        return True

    def remove(self) -> None:
        try:
            _remove(self.root)
        except KeyboardInterrupt:
            _remove(self.root)
            raise
        finally:
            if self.lock != _NO_LOCK:
                os.close(self.lock)
                self.lock = _NO_LOCK


def _is(handle: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), place.lstat())
    except FileNotFoundError:
        return False


def _collected(root: Path) -> bool:
    try:
        if root.is_symlink() or root.lstat().st_uid != os.geteuid():
            return False
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # empty: its process ended before it had a lock
            root.rmdir()
            return True
        return False
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    try:
        _remove(root)
    finally:
        os.close(lock)
    return not root.exists()


def _remove(root: Path) -> None:
    """The lock goes last: what is not removed now can be found later."""
    shutil.rmtree(root / _CONTENT, ignore_errors=True)
    if not (root / _CONTENT).exists():
        with contextlib.suppress(OSError):
            (root / _LOCK).unlink(missing_ok=True)
            root.rmdir()
