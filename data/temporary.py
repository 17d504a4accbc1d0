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
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

_PREFIX, _LOCK, _CONTENT = ".rsedge-", "lock", "in"
_TRIES = 100
_looked_at: set[str] = set()


class TemporaryFolder:
    """A folder that is gone after the block, at the latest with its process or at the next start.

    Attributes:
        path: the folder to work in; it lies on the disk of the folder it was made in, so that files can be renamed out of it.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        """Makes it inside ``parent`` (default: the system's temporary folder) and removes there what killed processes left.

        Raises:
            OSError: nothing can be made there.
        """
        place = Path(tempfile.gettempdir() if parent is None else parent)
        if (known := os.path.realpath(place)) not in _looked_at:
            _looked_at.add(known)
            collect_leftovers(place)
        root, lock = _locked_folder(place)
        self._end = weakref.finalize(self, _remove, root, lock)
        self.path = root / _CONTENT
        try:
            self.path.mkdir()
        except BaseException:
            self.cleanup()
            raise

    def cleanup(self) -> None:
        """Removes it; a second call does nothing."""
        self._end()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()


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


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new folder and its lock; None on a file system without locks, whose leftovers nobody collects."""
    for _ in range(_TRIES):
        root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        place = root / _LOCK
        try:
            lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue  # another process took the empty folder for a leftover
        except OSError:
            root.rmdir()
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, place):
                return root, lock
        except BlockingIOError:
            pass  # another process is looking whether it is a leftover
        except OSError:
            os.close(lock)
            place.unlink()
            return root, None
        os.close(lock)
    raise OSError(f"{parent}: no temporary folder could be made, others remove it at once")


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
    _remove(root, lock)
    return not root.exists()


def _remove(root: Path, lock: int | None) -> None:
    """The lock goes last: what is not removed now can be found later."""
    shutil.rmtree(root / _CONTENT, ignore_errors=True)
    if not (root / _CONTENT).exists():
        with contextlib.suppress(OSError):
            (root / _LOCK).unlink(missing_ok=True)
            root.rmdir()
    if lock is not None:
        os.close(lock)
