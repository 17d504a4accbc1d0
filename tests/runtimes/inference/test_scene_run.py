"""Whose seconds count for which stage."""

from __future__ import annotations

import threading
import time

from rsedge.runtimes.inference.scene_run import SceneRun


def _work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _beside(seconds: float) -> None:
    """Work of another thread, which this one waits for."""
    thread = threading.Thread(target=_work, args=(seconds,))
    thread.start()
    thread.join()


def test_a_stage_counts_this_thread_and_alone_the_whole_process() -> None:
    run = SceneRun()
    with run.stage("blend"):
        _beside(0.2)
    with run.stage("compress", alone=True):
        _beside(0.2)
    seconds = run.record()["seconds"]
    assert seconds["blend"] < 0.1 and seconds["compress"] >= 0.2
    assert seconds["infer"] >= 0.1  # what no stage counts
