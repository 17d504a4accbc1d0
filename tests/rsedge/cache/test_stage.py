"""The stage cache and the run folder: reuse, staleness, force, kill -9 and two runs at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from rsedge.cache.run_folder import RunFolder, open_run_folder
from rsedge.cache.stage import StageContext, StageResult, Stages, StageValue, check_stages
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import atomic_path


class Text(StageValue):
    """What the stages of these tests find."""

    text: str | None = None


class A(Text):
    stage: ClassVar[str] = "a"


class B(Text):
    stage: ClassVar[str] = "b"


Kind = TypeVar("Kind", bound=Text)


class Pipeline:
    """Two stages, b after a, that count how often each ran."""

    def __init__(self, root: Path, force: frozenset[str] = frozenset()) -> None:
        self.stages = Stages(RunFolder(root), force)
        self.ran: list[str] = []

    def run(self, a: Any = 1, b: Any = 1, data: str = "d") -> StageResult[B]:
        self.stages.stage(A, self._body(A, str(a)), {"a": a}, ["rsedge.data.errors"], inputs={"data": data})
        return self.stages.stage(B, self._body(B, str(b)), {"b": b}, ["rsedge.data.errors"], after=["a"])

    def _body(self, record: type[Kind], text: str) -> Callable[[StageContext], Kind]:
        def body(context: StageContext) -> Kind:
            self.ran.append(record.stage)
            (context.folder / "out.txt").write_text(text)
            return record(text=text)

        return body


def ran(root: Path, force: frozenset[str] = frozenset(), **settings: Any) -> list[str]:
    pipeline = Pipeline(root, force)
    pipeline.run(**settings)
    return pipeline.ran


def test_a_second_run_reuses_everything(tmp_path: Path) -> None:
    assert ran(tmp_path) == ["a", "b"]
    again = Pipeline(tmp_path)
    result = again.run()
    assert again.ran == []
    assert result.reused
    assert result.value == B(text="1")
    assert result.path("out.txt").read_text() == "1"


def test_changed_settings_redo_the_stage_and_what_reads_it(tmp_path: Path) -> None:
    ran(tmp_path)
    assert ran(tmp_path, b=2) == ["b"]
    assert ran(tmp_path, a=2, b=2) == ["a", "b"]


def test_changed_data_makes_the_cache_stale(tmp_path: Path) -> None:
    ran(tmp_path)
    assert ran(tmp_path, data="other")[0] == "a"


def test_changed_tool_version_makes_the_cache_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(tmp_path)
    monkeypatch.setattr("rsedge.cache.stage.tool_versions", lambda: {"openvino": "0"})
    assert ran(tmp_path) == ["a", "b"]


def test_same_outcome_upstream_leaves_later_stages_alone(tmp_path: Path) -> None:
    ran(tmp_path)
    (tmp_path / "stages/a/out.txt").unlink()
    assert ran(tmp_path) == ["a"]


def test_altered_output_is_noticed_and_redone(tmp_path: Path) -> None:
    ran(tmp_path)
    (tmp_path / "stages/b/out.txt").write_text("tampered")
    assert ran(tmp_path) == ["b"]
    assert (tmp_path / "stages/b/out.txt").read_text() == "1"


def test_broken_record_is_redone(tmp_path: Path) -> None:
    ran(tmp_path)
    (tmp_path / "stages/b/record.json").write_text('{"key": ')
    assert ran(tmp_path) == ["b"]


def test_force_redoes_the_stage_and_its_dependents(tmp_path: Path) -> None:
    ran(tmp_path)
    assert ran(tmp_path, force=frozenset({"a"})) == ["a", "b"]
    assert ran(tmp_path, force=frozenset({"b"})) == ["b"]


def test_force_names_the_stages_that_exist() -> None:
    with pytest.raises(RequestError, match=r"--force distil: no such stage.*distill, prune"):
        check_stages("--force", ["distil"], ["distill", "prune"])


def test_failed_stage_keeps_its_resume_folder_for_the_same_key(tmp_path: Path) -> None:
    def interrupted(context: StageContext) -> A:
        (context.resume / "step").write_text("40")
        (context.folder / "half.bin").write_text("x")
        raise KeyboardInterrupt

    def body(context: StageContext) -> A:
        step = context.resume / "step"
        assert not (context.folder / "half.bin").exists()
        return A(text=step.read_text() if step.exists() else None)

    code = ["rsedge.data.errors"]
    for lr, expected in ((1, "40"), (2, None)):
        stages = Stages(RunFolder(tmp_path / str(lr)))
        with pytest.raises(KeyboardInterrupt):
            stages.stage(A, interrupted, {"lr": 1}, code)
        assert stages.stage(A, body, {"lr": lr}, code).value == A(text=expected)
        assert not (tmp_path / str(lr) / "stages/a/resume").exists()


CHILD = """
import sys, time
from pathlib import Path
from rsedge.cache.run_folder import open_run_folder
from rsedge.cache.stage import Stages, StageValue
class First(StageValue):
    stage = "first"
class Second(StageValue):
    stage = "second"
    resumed: str
slow = sys.argv[2] == "slow"
def first(context):
    (context.folder / "first.txt").write_text("done")
    return First()
def second(context):
    step = context.resume / "step"
    resumed = step.read_text() if step.exists() else ""
    step.write_text("7")
    if slow:
        print("ready", flush=True)
        time.sleep(60)
    return Second(resumed=resumed)
with open_run_folder(sys.argv[1]) as folder:
    stages = Stages(folder)
    a = stages.stage(First, first, {}, ["rsedge.data.errors"])
    b = stages.stage(Second, second, {}, ["rsedge.data.errors"], after=["first"])
    print(a.reused, b.reused, b.value.resumed)
"""


def start_child(root: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_kill_in_mid_stage_then_rerun_resumes(tmp_path: Path) -> None:
    child = start_child(tmp_path / "run", "slow")
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "run/stages/second/record.json").exists()
    out, err = start_child(tmp_path / "run", "fast").communicate(timeout=60)
    assert out == "True False 7\n", err


def test_two_runs_on_one_folder_at_once(tmp_path: Path) -> None:
    child = start_child(tmp_path / "run", "slow")
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    try:
        started = time.monotonic()
        with (
            pytest.raises(RequestError, match=rf"process {child.pid}\) is using this folder"),
            open_run_folder(tmp_path / "run"),
        ):
            pass
        assert time.monotonic() - started < 5
    finally:
        child.kill()
        child.wait()
    with open_run_folder(tmp_path / "run") as folder:
        assert folder.stages.is_dir()


def test_disk_full_is_a_missing_capability_and_leaves_the_old_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    target = tmp_path / "model.bin"
    target.write_text("old")
    with pytest.raises(MissingCapability, match="no space left") as caught, atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x" * 100_000)
    assert caught.value.exit_code == 4
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_disk_full_in_a_stage_then_rerun(tmp_path: Path) -> None:
    def full(context: StageContext) -> A:
        with atomic_path(context.folder / "weights.bin") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x" * 100_000)
        return A()

    with pytest.raises(MissingCapability):
        Stages(RunFolder(tmp_path)).stage(A, full, {"a": 1}, ["rsedge.data.errors"], inputs={"data": "d"})
    assert ran(tmp_path) == ["a", "b"]


def test_a_folder_that_is_not_a_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RequestError, match=r"thesis\.tex"), open_run_folder(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_record_of_another_shape_is_no_result(tmp_path: Path) -> None:
    ran(tmp_path)
    path = tmp_path / "stages/b/record.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"value": {"texts": ["1"]}}))
    assert ran(tmp_path) == ["b"]


def test_results_are_found_by_the_kind_of_their_record(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    assert pipeline.stages.results.maybe(B) is None
    pipeline.run(b=3)
    assert pipeline.stages.results.of(B).text == "3"


def test_record_is_plain_json(tmp_path: Path) -> None:
    ran(tmp_path)
    record = json.loads((tmp_path / "stages/a/record.json").read_text())
    assert set(record) == {"stage", "key", "seconds", "memory_bytes", "outputs", "value", "digest"}
    assert list(record["outputs"]) == ["out.txt"]


def test_a_record_that_was_edited_is_not_taken_for_a_result(tmp_path: Path) -> None:
    assert ran(tmp_path) == ["a", "b"]
    path = tmp_path / "stages" / "a" / "record.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"value": {"text": "better"}}))
    assert ran(tmp_path) == ["a"], "b saw the same as before"
    assert ran(tmp_path) == []
