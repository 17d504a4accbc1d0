"""Locks of folders: one writer at a time, many readers, and nobody who holds one stops others for good."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rsedge.data.folder_lock import folder_lock


def test_writers_wait_for_each_other_and_readers_do_not(tmp_path: Path) -> None:
    seen: list[str] = []

    def write() -> None:
        with folder_lock(tmp_path):
            seen.append("writes")

    with folder_lock(tmp_path, reading=True) as there, folder_lock(tmp_path, reading=True):
        assert there
        other = threading.Thread(target=write)
        other.start()
        time.sleep(0.1)
        assert not seen
    other.join(5)
    assert seen == ["writes"]


def test_who_holds_it_for_long_does_not_stop_others(tmp_path: Path) -> None:
    with folder_lock(tmp_path), folder_lock(tmp_path, wait_s=0.05) as there:
        assert there


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "no") as there:
        assert not there
