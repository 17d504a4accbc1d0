"""The page that follows a run: true while it goes on, the report once it is done, for this machine alone."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.cli.main import run_app
from rsedge.data.files import folder_lock
from rsedge.recipe.places import recipe_hash
from rsedge.reports.live import live_page, live_server, stages_of
from rsedge.reports.runs import run_row

T = "2026-11-30T19:4"
LOG = f"""{T}0:00+00:00 mine -> runs/mine
{T}0:01+00:00 [1/3] data
{T}0:02+00:00   done in 9 s
{T}1:00+00:00 mine -> runs/mine
{T}1:01+00:00 [1/3] data: reused
{T}1:02+00:00 [2/3] distill
{T}1:03+00:00   distill: 5/10, about 7 s left <b>loss</b>
"""
Get = Callable[[str], tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    (root / "stages/data").mkdir(parents=True)
    (root / "stages/data/record.json").write_text("{}")
    (root / "recipe.resolved.yaml").write_text("name: mine\nseed: 3\n")
    (root / "run.log").write_text(LOG)
    return root


@pytest.fixture
def get(folder: Path) -> Iterator[Get]:
    with live_server(folder, 0, recipe_hash) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, ""

        yield ask
        server.shutdown()


def test_a_run_under_way_is_followed_and_ends_in_its_report(folder: Path, get: Get) -> None:
    with folder_lock(folder):
        status, page = get("/")
        assert (
            status == 200 and f"process {os.getpid()}" in page and 'http-equiv="refresh"' in page and "seed 3" in page
        )
        assert "2 of 3: distill" in page and "under way" in page and "33 %" in page and page.count("1 of 3: data") == 1
        assert "&lt;b&gt;loss" in page and "<b>loss" not in page
    page = get("/?x=1")[1]
    assert "interrupted" in page and 'http-equiv="refresh"' not in page and "not finished" in page
    assert get("/run.log")[0] == get("/../mine/run.log")[0] == 404
    from tests.reports.test_runs import made

    done = made(folder.parent / "done", "done", 1.0)
    (done / "report.html").write_text("the report")
    assert live_page(done, recipe_hash) == "the report"


def test_it_answers_this_machine_alone(folder: Path) -> None:
    """A page in a browser here, whose name was made to mean this machine, must not read a log."""
    with live_server(folder, 0, recipe_hash) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        for name, code in (("evil.example", 403), (f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200)):
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            asked.request("GET", "/", headers={"Host": name})
            assert asked.getresponse().status == code
            asked.close()
        server.shutdown()


def test_a_folder_that_changes_while_it_is_looked_at_is_no_error(folder: Path) -> None:
    """A run makes and removes temporary folders all the time."""
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for number in range(20):
                (folder / f"stages/.rsedge-{number}").mkdir(exist_ok=True)
            for number in range(20):
                (folder / f"stages/.rsedge-{number}").rmdir()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(150):
            assert "interrupted" in live_page(folder, recipe_hash) and run_row(folder, recipe_hash).size_bytes > 0
    finally:
        ended.set()
        thread.join()


def test_only_the_last_run_of_a_log_counts() -> None:
    found = stages_of(LOG)
    assert [(s.number, s.name, s.words) for s in found] == [(1, "data", "reused"), (2, "distill", "")]
    assert stages_of(LOG.replace("[2/3] distill", "  done in 4 s"))[-1].words == "done in 4 s"


@given(st.text())
def test_any_log_makes_a_list(text: str) -> None:
    assert all(stage.name for stage in stages_of(text))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--port", "8000"], "--port is about --watch"),
        (["--watch", "--json"], "leave --markdown, --pdf and --json out"),
        (["--watch"], "no run has begun there"),
    ],
)
def test_bad_input(extra: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["report", str(tmp_path), *extra]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with live_server(folder, 0, recipe_hash) as server:
        assert run_app(["report", str(folder), "--watch", "--port", str(server.server_address[1])]) == 2
    assert "give another one, or none for a free one" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_not_there_is_named_as_it_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["report", str(tmp_path / "typo"), "--watch"]) == 2
    assert f"{tmp_path}/typo: has no run.log" in "".join(capsys.readouterr().err.split("\n"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_its_ordinary_end(number: signal.Signals, folder: Path) -> None:
    start = "import sys; from rsedge.cli.main import run_app; sys.exit(run_app(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "report", str(folder), "--watch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.stderr.read() == "" and process.wait(20) == 0
