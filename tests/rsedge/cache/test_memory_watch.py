"""What a stage's process holds: arrays count, pages of files do not."""

from pathlib import Path

import numpy as np
import psutil

from rsedge.cache.memory_watch import MemoryWatch

SIZE = 200_000_000


def test_own_memory_is_what_arrays_take() -> None:
    before = psutil.Process().memory_info()
    with MemoryWatch() as watch:
        held = np.ones(SIZE, np.uint8)
    assert watch.own - (before.rss - before.shared) > 0.9 * SIZE and held[0] == 1


def test_pages_of_a_file_are_not_held(tmp_path: Path) -> None:
    np.ones(SIZE, np.uint8).tofile(tmp_path / "values")
    before = psutil.Process().memory_info()
    with MemoryWatch() as watch:
        mapped = np.memmap(tmp_path / "values", np.uint8, "r")
        assert int(mapped.sum()) == SIZE
    assert watch.own - (before.rss - before.shared) < 0.5 * SIZE < watch.peak - before.rss
