"""Stages of a shelf: what one run made others take, two at once make nothing twice, and what is damaged is made anew."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.shelf import Shelf
from rsedge.cache.stage import StageContext, StageResult, Stages, StageValue


class Made(StageValue):
    stage: ClassVar[str] = "made"

    text: str


def make(
    root: Path, shelf: Path | None, text: str = "x", seconds: float = 0.0, force: bool = False
) -> StageResult[Made]:
    """The stage in a run of its own; every making leaves a line in ``made.log`` beside the runs."""

    def body(context: StageContext) -> Made:
        with (root.parent / "made.log").open("a") as log:
            log.write(f"{root.name} {text}\n")
        time.sleep(seconds)
        (context.folder / "inside").mkdir()
        (context.folder / "inside/out.txt").write_text(text)
        return Made(text=text)

    stages = Stages(RunFolder(root), frozenset({"made"} if force else ()))
    stages.shelf = None if shelf is None else Shelf(shelf)
    return stages.stage(Made, body, {"text": text}, ["rsedge.data.errors"])


def times_made(folder: Path) -> int:
    log = folder / "made.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_what_one_run_made_others_take(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, tmp_path / "shelf") for name in ("a", "b"))
    assert not first.reused and second.reused and times_made(tmp_path) == 1
    assert second.path("inside/out.txt").read_text() == "x" and second.digest == first.digest
    assert first.path("inside/out.txt").samefile(second.path("inside/out.txt")), "no disk for a second copy"
    assert not make(tmp_path / "c", tmp_path / "shelf", "y").reused, "another key is another stage"
    assert make(tmp_path / "c", tmp_path / "shelf", "x").reused and times_made(tmp_path) == 2
    assert make(tmp_path / "c", tmp_path / "shelf", "y").reused, "both stay on the shelf, whatever a run holds"
    assert not make(tmp_path / "c", tmp_path / "shelf", "y", force=True).reused


def test_a_run_that_was_killed_before_it_put_its_stage_there_does_so_when_it_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "a", None)
    assert make(tmp_path / "a", tmp_path / "shelf").reused and make(tmp_path / "b", tmp_path / "shelf").reused
    assert times_made(tmp_path) == 1


def test_a_damaged_stage_is_made_anew_and_put_in_place_of_it(tmp_path: Path) -> None:
    found = make(tmp_path / "a", tmp_path / "shelf")
    found.path("inside/out.txt").write_text("changed in place, and so on the shelf")
    assert not make(tmp_path / "b", tmp_path / "shelf").reused
    assert make(tmp_path / "c", tmp_path / "shelf").path("inside/out.txt").read_text() == "x"
    assert times_made(tmp_path) == 2


def test_taking_keeps_nothing_of_another_stage_of_that_name(tmp_path: Path) -> None:
    make(tmp_path / "a", tmp_path / "shelf")
    other = make(tmp_path / "b", None, "y")
    (other.folder / "leftover.txt").write_text("y")
    assert {p.name for p in make(tmp_path / "b", tmp_path / "shelf").folder.iterdir()} == {"record.json", "inside"}


@pytest.fixture
def begin() -> Callable[..., multiprocessing.Process]:
    context = multiprocessing.get_context("fork")

    def begun(*arguments: object) -> multiprocessing.Process:
        process = context.Process(target=make, args=arguments)
        process.start()
        return process  # type: ignore[return-value]

    return begun


def test_of_two_processes_one_makes_it_and_the_other_waits(
    tmp_path: Path, begin: Callable[..., multiprocessing.Process]
) -> None:
    both = [begin(tmp_path / name, tmp_path / "shelf", "x", 0.5) for name in ("a", "b")]
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert times_made(tmp_path) == 1
    assert all((tmp_path / name / "stages/made/inside/out.txt").read_text() == "x" for name in ("a", "b"))


def test_who_waits_goes_on_when_the_maker_is_killed(
    tmp_path: Path, begin: Callable[..., multiprocessing.Process]
) -> None:
    slow = begin(tmp_path / "a", tmp_path / "shelf", "x", 60.0)
    while times_made(tmp_path) == 0:
        assert slow.is_alive()
        time.sleep(0.01)
    waiting = begin(tmp_path / "b", tmp_path / "shelf", "x", 0.0)
    time.sleep(0.2)
    assert waiting.is_alive() and times_made(tmp_path) == 1
    assert slow.pid is not None
    os.kill(slow.pid, signal.SIGKILL)
    waiting.join(30)
    assert waiting.exitcode == 0 and times_made(tmp_path) == 2
