"""Every signal that ends a command clears up first, and says which end it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsedge.cli.main import GOES_ON, STARTS_OVER
from rsedge.stopping import stoppable

SLEEPER = """
import sys, time
from pathlib import Path
from rsedge.cli import main as cli
from rsedge.data.temporary import TemporaryFolder

def work(arguments):
    with TemporaryFolder(Path(sys.argv[1])):
        print("working", flush=True)
        for _ in range(600):  # not once: a signal that comes just before a sleep begins is heard when it is over
            time.sleep(0.1)

cli._run = work
sys.exit(cli.run_app(sys.argv[2:]))
"""
ENDED = """
import os, signal, sys
from rsedge.cli import main as cli

def ended(arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    raise RuntimeError("what compiled code makes of it")

cli._run = ended
sys.exit(cli.run_app(sys.argv[1:]))
"""
DROPPED = """
import os, signal, sys, time
from rsedge.cli import main as cli

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.Signals[sys.argv[1]])
        for _ in range(1000):
            pass

def work(arguments):
    found = Finalized()
    del found
    for _ in range(200):
        time.sleep(0.1)

cli._run = work
sys.exit(cli.run_app(sys.argv[2:]))
"""
"""In a process of its own: a test's process may hand signals to another thread."""


def started(folder: Path, *arguments: str, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + SLEEPER, str(folder), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "working\n"
    return child


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_clears_up_and_has_its_exit_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    child = started(tmp_path, "infer")
    child.send_signal(number)
    child.send_signal(signal.SIGTERM)  # as supervisors do, right behind it
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code and STARTS_OVER in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    child = started(tmp_path, "infer", before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    child.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert child.poll() is None
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 143


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "x"], GOES_ON),
        (["bench", "x", "--on=ssh://y"], GOES_ON),
        (["run", "x", "--dry-run"], STARTS_OVER),
        (["infer", "x"], STARTS_OVER),
    ],
)
def test_what_the_same_command_does_next_is_said_truly(arguments: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDED, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143
    assert f"interrupted by SIGTERM; {said}" in done.stderr.replace("\n", " ")


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_that_a_finalizer_drops_is_heard_all_the_same(name: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED, name, "infer"], capture_output=True, text=True, timeout=60)
    assert done.returncode == code and STARTS_OVER in done.stderr and "Traceback" not in done.stderr
