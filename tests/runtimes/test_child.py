"""What a child may do: answer, meet our errors, die, hang; the process that asked goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import IntegrityError, MissingCapability
from rsedge.runtimes.child import Child, ChildEnded, Contents


def answer(question: str, contents: Contents) -> Any:
    """The child's side of these tests."""
    if question == "join":
        return (contents() + contents()).decode()
    if question == "refuse":
        raise IntegrityError("a file: altered")
    if question == "memory":
        raise MemoryError
    if question == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if question == "leave":
        os._exit(7)
    if question == "hang":
        time.sleep(60)
    return os.getpid()


@pytest.fixture
def child() -> Any:
    made = Child(f"{__name__}:answer")
    yield made
    made.close()


def test_it_answers_with_the_contents_it_got(child: Child) -> None:
    assert child.ask(20, "join", b"a" * 100_000, b"b") == "a" * 100_000 + "b"
    assert child.ask(20, "who") != os.getpid()


def test_our_own_errors_come_back_and_it_goes_on(child: Child) -> None:
    with pytest.raises(IntegrityError, match="a file: altered"):
        child.ask(20, "refuse")
    with pytest.raises(MissingCapability, match="more memory"):
        child.ask(20, "memory")
    assert child.ask(20, "who")


@pytest.mark.parametrize(
    ("question", "told"), [("die", "was ended by SIGSEGV"), ("leave", "exit code 7"), ("hang", "no answer in 1 s")]
)
def test_a_child_that_dies_or_hangs_is_told_of(child: Child, question: str, told: str) -> None:
    with pytest.raises(ChildEnded, match=told):
        child.ask(1, question)
    with pytest.raises(ChildEnded, match=told):
        child.ask(1, "who")


def test_nothing_is_imported_from_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    made = Child(f"{__name__}:answer")
    assert made.ask(20, "who")
    made.close()


def test_it_ends_when_nobody_holds_it() -> None:
    made = Child(f"{__name__}:answer")
    number = made.ask(20, "who")
    del made
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


PARENT = """
import sys
sys.path[:] = sys.argv[2:]
from rsedge.runtimes.child import Child
child = Child(sys.argv[1])
print(child.ask(20, "who"), flush=True)
child.ask(60, "hang")
"""


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_who_asked_while_it_is_busy(ended: signal.Signals) -> None:
    words = [sys.executable, "-c", PARENT, f"{__name__}:answer", *sys.path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.send_signal(ended)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{number}/cmdline").exists() and b"child" in Path(f"/proc/{number}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "it outlives the process that asked"
        time.sleep(0.05)
