"""Run folders in a list: each as what it is, in the order and selection asked for."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsedge.cli.main import run_app
from rsedge.data.files import sha256_of
from rsedge.data.metrics.verdict import Gate
from rsedge.devices.measure.protocol import LatencyMs
from rsedge.recipe.places import recipe_hash
from rsedge.reports.runs import list_runs, run_row
from rsedge.reports.schema import DataRecord, Interval, Report, TargetRecord, TeacherRecord, save_report


def made(folder: Path, name: str, ms: float, size: float = 10.0, created: str = "2026-01-01T00:00:00+00:00") -> Path:
    """A finished run with one measured target, a faster predicted one, and a gate of 5 bytes on its size."""
    recipe = {"name": name, "seed": 3}
    (folder / "stages/export").mkdir(parents=True)
    (folder / "stages/export/record.json").write_text("{}")
    (folder / "recipe.resolved.yaml").write_text(f"name: {name}\nseed: 3\n")
    (folder / "bundles/openvino-cpu-f32").mkdir(parents=True)
    (folder / "bundles/openvino-cpu-f32/manifest.json").write_text(json.dumps({"recipe_sha256": sha256_of(recipe)}))
    latency = LatencyMs(p50=ms, p90=2 * ms, p99=3 * ms)
    gate = Gate(metric="size", constraint="max", limit=5, target="openvino-cpu-f32", value=size,
                outcome="passed" if size <= 5 else "failed")  # fmt: skip
    guess = Interval(low_ms=0.1, mid_ms=0.2, high_ms=0.3, basis="predicted")
    base: dict[str, Any] = {"runtime": "openvino", "device": "cpu"}
    save_report(
        Report(
            name=name, created=created, classes=["a", "b"], teacher=TeacherRecord(name="t", params=1, size_bytes=1),
            data=DataRecord(manifest_sha256="0", splits={}),
            targets=[
                TargetRecord(name="openvino-cpu-f32", precision="f32", provenance="measured", latency_ms=latency,
                             gates=[gate], bundle="bundles/openvino-cpu-f32", **base),
                TargetRecord(name="openvino-npu-fp16", precision="fp16", provenance="predicted", interval=guess, **base),
            ],
        ),
        folder / "report.json",
    )  # fmt: skip
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Runs in every state; the lock of the running one is held."""
    root = tmp_path / "runs"
    made(root / "good", "good", 2.0, size=4.0)
    made(root / "bad", "bad", 1.0, created="2026-02-01T00:00:00+00:00")
    shutil.rmtree(made(root / "half", "half", 1.0) / "bundles")
    (root / "half/report.json").unlink()
    made(root / "changed", "changed", 1.0)
    (root / "changed/recipe.resolved.yaml").write_text("name: changed\nseed: 4\n")
    made(root / "torn", "torn", 1.0)
    (root / "torn/report.json").write_text('{"schema_version": 1')
    made(root / "old", "old", 1.0)
    old = json.loads((root / "old/report.json").read_text())
    (root / "old/report.json").write_text(json.dumps(old | {"schema_version": 0, "rsedge_version": "0.0.1"}))
    made(root / "lost", "lost", 1.0)
    shutil.rmtree(root / "lost/bundles")
    made(root / "busy", "busy", 1.0)
    shutil.rmtree(root / "busy/bundles")  # being made anew, beside the report of before
    (root / "notes").mkdir()
    with working_in(root / "busy"), working_in(root / "begun"):
        yield root


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Another process holds the folder, as a run does."""
    hold = "import sys; from rsedge.data.files import folder_lock\n"
    hold += "with folder_lock(sys.argv[1]): print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield
        process.communicate()


def cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run_app(["runs", *map(str, words)])
    return code, *capsys.readouterr()


def test_each_folder_is_listed_as_what_it_is(folder: Path) -> None:
    rows = {row.path.name: row for row in list_runs(folder, recipe_hash)}
    assert {name: row.state for name, row in rows.items()} == {
        "bad": "done", "good": "done", "busy": "running", "begun": "running", "half": "interrupted", "changed": "interrupted",
        "torn": "damaged", "old": "damaged", "lost": "damaged",
    }  # fmt: skip
    good, bad = rows["good"], rows["bad"]
    assert (good.verdict, good.gates_failed, good.seed, bad.verdict, bad.gates_failed) == ("passed", 0, 3, "failed", 1)
    assert (good.fastest, good.fastest_ms) == ("openvino-cpu-f32", 2.0), "a prediction is no measurement"
    assert good.recipe == sha256_of({"name": "good", "seed": 3}) and good.size_bytes > 500
    notes = {name: row.note or "" for name, row in rows.items()}
    assert notes["busy"] == f"process {(folder / 'busy/.lock').read_text()}; last finished stage: export"
    assert (rows["busy"].name, rows["busy"].verdict) == ("busy", None) and "no stage is finished" in notes["begun"]
    assert notes["half"] == "last finished stage: export"
    assert "of another recipe" in notes["changed"] and "report.json" in notes["torn"]
    assert "rsedge 0.0.1 wrote it" in notes["old"] and "manifest.json" in notes["lost"]
    assert rows["changed"].verdict is None, "a verdict of another recipe is none of this run's"


LISTING = """
import sys
def seen(event, args):
    takes = event == "fcntl.flock" or (event == "fcntl.fcntl" and args[1] in (6, 7, 37, 38))
    if takes or event in ("os.mkdir", "os.remove", "os.rename"):
        sys.exit(f"{event} {args}")
    if event == "open" and args[2] & 3:
        sys.exit(f"opens {args} for writing")
from rsedge.cli import complete
from rsedge.recipe.places import recipe_hash
from rsedge.reports.runs import list_runs
from pathlib import Path
list_runs(Path("runs"), recipe_hash)  # what is imported late is compiled and cached
sys.addaudithook(seen)
print(len(list_runs(Path("runs"), recipe_hash)), [name for name, _ in complete.runs("runs/b")])
"""


def test_listing_takes_no_lock_and_writes_nothing(folder: Path) -> None:
    """Neither `rsedge runs` nor the shell's completion stands in the way of a run that begins."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    done = subprocess.run([sys.executable, "-c", LISTING], cwd=folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["9", "['runs/bad',", "'runs/busy',", "'runs/begun/']"], done.stdout
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_run_alone_and_one_that_only_began(folder: Path, tmp_path: Path) -> None:
    assert [row.path for row in list_runs(folder / "good", recipe_hash)] == [folder / "good"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new/recipe.resolved.yaml").write_text("name: new\n")
    row = run_row(tmp_path / "new", recipe_hash)
    assert (row.state, row.note, row.name) == ("interrupted", "no stage is finished", "new") and row.date is not None


def test_the_command_sorts_and_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = cli(capsys, folder, "--state", "done", "--sort", "latency", "--json")
    assert code == 0 and [run["name"] for run in json.loads(out)["runs"]] == ["bad", "good"]
    for order, names in (("date", ["bad", "good"]), ("name", ["bad", "good"]), ("failed", ["bad", "good"])):
        _, out, _ = cli(capsys, folder, "--state", "done", "--sort", order, "--json")
        assert [run["name"] for run in json.loads(out)["runs"]] == names
    _, out, _ = cli(capsys, folder, "--verdict", "passed", "--json")
    assert [run["name"] for run in json.loads(out)["runs"]] == ["good"]
    code, out, _ = cli(capsys, folder)
    assert code == 0 and all(name in out for name in ("busy", "torn", "gates failed")) and "notes" not in out


def test_bad_requests_name_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([folder / "none"], "no such folder"),
        ([folder, "--sort", "dat"], "--sort dat: choose date, name"),
        ([folder, "--state", "finished"], "--state finished: choose done"),
        ([folder, "--verdict", "good"], "--verdict good: choose passed"),
    ):
        code, out, err = cli(capsys, *words)
        assert code == 2 and said in err and out == ""
    code, out, err = cli(capsys, folder / "notes")
    assert (code, out) == (0, "") and "no such run folder" in err
