"""Folders that are kept for whoever needs them again, within a bound: those that nobody uses go, the longest unused first.

Each has a file, its mark, which is touched when it is used. While a process holds a folder, it stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from rsedge.data.errors import MissingCapability
from rsedge.data.files import make_folder, writing


def hold(folder: Path) -> int:
    """A handle by which the folder is in use; whoever would remove it finds it held.

    Raises:
        RequestError, MissingCapability: it cannot be made or read.
    """
    while True:
        with writing(folder):
            make_folder(folder)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)  # it was removed before it was held


def make_room(store: Path, mark: str, keep: Path, need: int, most: int, mend: str) -> None:
    """Removes folders of ``store`` that nobody uses, the longest unused first, until ``need`` bytes more fit within ``most`` and on
    the disk.

    Args:
        mark: name of the file that each of them has.
        keep: the folder that the room is for.
        mend: what a user may do where there is none.

    Raises:
        MissingCapability: the disk has not that much room even then.
    """
    others = [p.parent for p in store.glob(f"*/{mark}") if p.parent != keep]
    for folder in sorted(others, key=lambda folder: _used(folder / mark)):
        if _bytes(store) + need <= most and need <= room_in(store):
            return
        _remove(folder)
    if need > room_in(store):
        raise MissingCapability(
            f"{store}: {need / 1e9:.1f} GB are needed, {_free(store) / 1e9:.1f} GB are free; free some, {mend}"
        )


def _remove(folder: Path) -> None:
    """Removes a set unless somebody holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _used(mark: Path) -> float:
    try:
        return mark.stat().st_mtime
    except OSError:
        return 0.0


def _bytes(store: Path) -> int:
    total = 0
    for path in store.glob("*/*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    return shutil.disk_usage(there).free


def room_in(folder: Path) -> int:
    """Bytes that may be taken on the disk where the folder is, or will be."""
    return int(0.9 * _free(folder))
