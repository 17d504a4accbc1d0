"""A sign of life on stderr with --json, and the log of a run."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from rsedge.cache.run_folder import RunFolder
from rsedge.cli import heartbeat as beat
from rsedge.cli.heartbeat import heartbeat
from rsedge.data.run_names import OWN_NAMES
from rsedge.progress import Reporter


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat, "FIRST_S", 0.05)
    monkeypatch.setattr(beat, "EVERY_S", 0.05)


def test_a_long_command_with_json_gives_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    with heartbeat(["run", "x", "--json"]), Reporter(quiet=True) as reporter:
        reporter.step("distill", 3, 40)
        time.sleep(0.4)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) >= 2
    assert all(re.fullmatch(r"rsedge run: at work for \d+ s: distill 3/40", line) for line in lines), lines
    time.sleep(0.15)
    assert capsys.readouterr().err == "", "it goes on after the command"


@pytest.mark.parametrize("arguments", [["run", "x"], ["serve", "x", "--json"], []])
def test_others_say_nothing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with heartbeat(arguments):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", "")


def test_a_short_command_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(beat, "FIRST_S", 10.0)
    with heartbeat(["run", "--json"]):
        pass
    assert capsys.readouterr() == ("", "")


def test_the_log_has_every_line_with_its_time_and_how_the_run_ended(tmp_path: Path) -> None:
    log = RunFolder(tmp_path).log
    assert log.name in OWN_NAMES
    with Reporter(quiet=True, log=log) as reporter:
        reporter.note("[1/2] data\n  warning: few")
    with pytest.raises(KeyboardInterrupt), Reporter(quiet=True, log=log) as reporter:
        reporter.note("[2/2] distill")
        raise KeyboardInterrupt
    lines = log.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "[1/2] data", "  warning: few", "[2/2] distill", "ended by KeyboardInterrupt: ",
    ]  # fmt: skip
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", line) for line in lines)


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    with Reporter(quiet=True, log=tmp_path / "none" / "run.log") as reporter:
        reporter.note("goes on")
