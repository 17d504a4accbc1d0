"""Finished stages of several runs, by their keys: what one run made, others of the same shelf take instead of making it.

A stage lies in ``<stage>/<key>``, with its record; files are hard links of those in the runs, so that it costs no disk. Whoever
makes a stage holds its lock meanwhile, and who wants the same one waits: two processes never make it at once. The kernel takes the
lock back however its holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rsedge.data.files import make_folder
from rsedge.data.temporary import TemporaryFolder


class Shelf:
    """The stages under ``root``; made when the first is put there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, stage: str, key: str) -> Path:
        """Where a finished stage lies, or would."""
        return self.root / stage / key

    @contextlib.contextmanager
    def making(self, stage: str, key: str) -> Iterator[None]:
        """Within the block nobody else makes this stage; waits while somebody does."""
        make_folder(self.root / stage)
        handle = os.open(self.root / stage / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: two may make it, each puts it whole
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def take(self, stage: str, key: str, folder: Path) -> bool:
        """Puts the stage into a run's ``folder`` in place of what is there; False where the shelf does not have it."""
        found = self.place(stage, key)
        if not found.is_dir():
            return False
        make_folder(folder.parent)
        with TemporaryFolder(folder.parent) as scratch:
            _linked(found, scratch / stage)
            if folder.exists():
                shutil.rmtree(folder)
            (scratch / stage).rename(folder)
        return True

    def put(self, stage: str, key: str, folder: Path) -> None:
        """Keeps the finished stage in a run's ``folder``, in place of one that lies there already."""
        found = self.place(stage, key)
        with TemporaryFolder(found.parent) as scratch:
            _linked(folder, scratch / stage)
            if found.exists():
                shutil.rmtree(found)
            (scratch / stage).rename(found)


def _linked(source: Path, target: Path) -> None:
    """The same files under another folder, which is made; copies where the file system has no hard links."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
