"""A recipe on real pixels trained by several processes, by the command: like one process, kills, who starts them, bad input."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rsedge.cli.main import run_app
from rsedge.compress.distill.group import Member
from rsedge.compress.distill.training import DistillRecord
from rsedge.data.errors import RequestError
from rsedge.pipeline.together import member_of
from rsedge.results import records
from rsedge.stages import distill as distill_stages
from rsedge.stages import rows
from tests.compress.distill.test_group import LOSS_APART, WEIGHTS_APART
from tests.rsedge.search.searched import write

pytest.importorskip("lightning")
pytest.importorskip("spyndex")

Cli = Callable[..., tuple[int, str, str]]
UNTIL = ("--set", "steps.distill.autocast=off", "--until", "distill")
KILLED_AT = 7


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe"))[0]


def trained(run: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    folder = run / "stages/distill"
    return json.loads((folder / "record.json").read_text()), load_file(next(folder.glob("model/*.safetensors")))


def assert_alike(one: Path, two: Path) -> None:
    """The same stage, and within rounding the same student."""
    (a, weights), (b, others) = trained(one), trained(two)
    assert a["key"] == b["key"]
    for first, second in zip(a["value"]["record"]["history"], b["value"]["record"]["history"], strict=True):
        assert second == pytest.approx(first, rel=LOSS_APART)
    for name, wanted in weights.items():
        assert np.abs(others[name] - wanted).max() <= WEIGHTS_APART * max(np.abs(wanted).max(), 1e-6), name


@pytest.fixture(scope="module")
def one(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSEDGE_TEACHER_CACHE", str(folder / "outputs"))
        assert run_app(["run", str(recipe), "--run-dir", str(folder / "run"), *UNTIL]) == 0
    return folder / "run"


def before_distillation(one: Path, folder: Path) -> Path:
    """The same run up to its teacher: two exports of a teacher differ in a name of theirs, and their keys with them."""
    shutil.copytree(one, folder, ignore=shutil.ignore_patterns("distill"))
    return folder


def test_two_processes_train_as_one(recipe: Path, one: Path, cli: Cli, tmp_path: Path) -> None:
    two = before_distillation(one, tmp_path / "two")
    command = ("run", recipe, "--run-dir", two, *UNTIL, "--processes", 2)
    code, _, err = cli(*command)
    assert code == 0 and "teacher: reused" in err and "2 processes, of which 1 are started now" in err
    assert not multiprocessing.active_children()
    assert trained(two)[0]["value"]["record"]["processes"] == [2]
    assert_alike(one, two)
    code, _, err = cli(*command)
    assert code == 0 and "distill: reused" in err and "started now" not in err, "nothing is left to be done together"


@pytest.mark.slow
def test_one_that_dies_ends_the_others_and_costs_no_finished_step(
    recipe: Path, one: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = before_distillation(one, tmp_path / "two")
    plain = distill_stages.report_progress

    def killing(ctx: Any, name: str) -> Any:
        tell = plain(ctx, name)

        def step(number: int, total: int, parts: dict[str, float]) -> None:
            tell(number, total, parts)
            if number == KILLED_AT:
                multiprocessing.active_children()[0].kill()

        return step

    with monkeypatch.context() as patch:
        patch.setattr(distill_stages, "report_progress", killing)
        code, _, err = cli("run", recipe, "--run-dir", two, *UNTIL, "--processes", 2)
    lines = err[err.index("error:") :].splitlines()
    assert code == 4 and len(lines) == 3 and "process 1 of 2 ended" in lines[0] and "-9" in lines[0]
    assert "up to its last checkpoint" in lines[1] and "same command again" in lines[2]
    assert not multiprocessing.active_children()
    assert (two / "stages/distill/resume/resume.safetensors").is_file()
    code, _, err = cli("run", recipe, "--run-dir", two, *UNTIL)
    assert code == 0 and trained(two)[0]["value"]["record"]["processes"] == [2, 1]
    assert_alike(one, two)


@pytest.mark.parametrize(
    ("processes", "words"),
    [([], ""), ([1], ""), ([2], "; trained by 2 processes"), ([1, 2], "; trained by 1, then 2 processes")],
)
def test_the_report_says_how_many_trained(processes: list[int], words: str) -> None:
    record = DistillRecord(steps=8, best_step=4, processes=processes)
    distilled = records.Distill(record=record, params=1, macs=2, selection={})
    teacher = SimpleNamespace(params=3, macs=4)
    results = SimpleNamespace(of=lambda kind: teacher)
    assert rows.fields_of(distilled, results)["reason"] == f"best at step 4 of 8; autocast off{words}"


@pytest.mark.slow
def test_torchrun_and_slurm_bring_the_processes(recipe: Path, one: Path, tmp_path: Path) -> None:
    for run in ("torchrun", "slurm"):
        before_distillation(one, tmp_path / run)
    rsedge = [sys.executable, "-m", "rsedge.cli", "run", str(recipe), *UNTIL, "--json", "--run-dir"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", *rsedge]
    done = subprocess.run([*torchrun, str(tmp_path / "torchrun")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and json.loads(done.stdout)["stopped_after"] == "distill", done.stderr
    assert_alike(one, tmp_path / "torchrun")
    tasks = [
        subprocess.Popen(
            [*rsedge, str(tmp_path / "slurm")], env=os.environ | slurm(rank), stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    first, second = (task.communicate(timeout=300)[0] for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0]
    assert json.loads(first)["stopped_after"] == "distill" and not second, "one process of a group speaks"
    assert_alike(one, tmp_path / "slurm")


def slurm(rank: int) -> dict[str, str]:
    """What ``srun --nodes 1 --ntasks-per-node 2`` sets for a task; there is no Slurm here."""
    return {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1",
        "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "train",
    }  # fmt: skip


def torchrun(rank: int, count: int, local: int, of: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(of),
    }  # fmt: skip


def test_places_are_those_that_the_starter_gave() -> None:
    assert member_of({}) is None and member_of(torchrun(0, 1, 0, 1)) is None
    assert member_of(torchrun(5, 8, 1, 4)) == Member("torchrun", 5, 8, 1, 4)
    assert member_of(slurm(1)) == Member("slurm", 1, 2, 1, 2)
    for uneven in (torchrun(0, 5, 0, 2), slurm(0) | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"}):
        with pytest.raises(RequestError, match="start as many on each"):
            member_of(uneven)


def test_what_cannot_be_shared_is_refused_before_any_work(
    recipe: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*more: Any, code: int = 2) -> str:
        found, _, err = cli("run", recipe, "--run-dir", tmp_path / "run", *more)
        assert found == code and not (tmp_path / "run").exists()
        return " ".join(err.split())

    assert "a step of 2 views cannot be shared among 3 processes; start at most 2" in refused("--processes", 3)
    assert "leave --processes out" in refused("--processes", 2, "--dry-run")
    assert "1 for" not in refused("--processes", 0)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        text = refused("--processes", 2, code=4)
    assert (
        "training by 2 processes needs the Python module 'lightning'" in text and "pip install 'rsedge[scale]'" in text
    )
    for name, value in torchrun(0, 2, 0, 2).items():
        monkeypatch.setenv(name, value)
    assert "--processes 4: 2 were started together" in refused("--processes", 4)
