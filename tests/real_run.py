"""One small real run that several tests look at, made once: the teacher and the chip are real, the student hardly trains.

Everything comes from installed wheels (``ukis-csmask``, ``spyndex``); no download, no RSEDGE_DATA. It runs traced
(:mod:`tests.traced_run`), is killed in distillation and goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rsedge.models import zoo
from rsedge.recipe.reading import load_recipe
from rsedge.reports.assets import ReportAssets
from rsedge.reports.schema import Report
from rsedge.runtimes.myriad.process import find_environment
from tests.traced_run import TEACHER, rows_of_small_tiles

INT8, F32, JETSON = "openvino-cpu-int8", "openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"
MYRIAD = "openvino-myriad-x-fp16"
RECIPE = f"""\
name: tiny
threads: 1
teacher: {{name: {TEACHER}}}
data:
  train: [{{source: spyndex-sentinel2}}]
  test: {{source: spyndex-sentinel2, simulated_clouds: 2}}
  calibration: {{tiles: 4, draws: 2}}
  block: 50
student: {{name: slim-unet, stem: 8, encoder: [8, 16], blocks: [0, 0], decoder: [16, 8]}}
steps:
  - distill: {{steps: 40, views: 16, batch: 4, validate_every: 20, checkpoint_every: 5}}
  - prune: {{steps: 1, round_to: 4, recovery_steps: 2, taylor_batches: 1, max_drop: 1.0, min_gain: 0.0,
             target: {{macs_ratio: 0.9}}, latency_on: {JETSON}}}
  - quantize: {{max_trials: 1, max_tunings: 1, max_drop: 1.0}}
targets: [{INT8}, {F32}, {JETSON}TARGETS]
mission: orbit.yaml
gates:
  - {{metric: kappa, max_drop: 2.0}}
  - {{metric: agreement, min: 0, target: {F32}}}
  - {{metric: latency, min_speedup: 1000, over: teacher-openvino-f32, target: {INT8}}}
  - {{metric: size, max: 5000000}}
  - {{metric: size, max: 1000, target: {F32}}}
  - {{metric: latency, max: 1000, target: {JETSON}}}
"""
MISSED = 2
"""Of its gates, two do not hold, by far: neither rests on what a few steps of training make of the student here."""


def words(folder: Path, *more: str) -> list[str]:
    """Arguments of ``rsedge`` that run the recipe in ``folder``; with a VPU's target where OpenVINO 2022.3.2 is here."""
    recipe, orbit = folder / "recipe.yaml", folder / "orbit.yaml"
    if not orbit.exists():  # a second run may find no room to write them again
        recipe.write_text(RECIPE.replace("TARGETS", f", {MYRIAD}" if find_environment() else ""))
        orbit.write_text("orbit: {altitude_km: 500}\nsensor: {gsd_m: 10}\n")
    return ["run", str(recipe), "--run-dir", str(folder / "run"), *more]


def command(folder: Path, *more: str, traced: bool = True) -> list[str]:
    """``rsedge run`` of the recipe in ``folder``."""
    (folder / "trace").mkdir(exist_ok=True)
    return [sys.executable, *short_run(folder / "trace" if traced else "-"), *words(folder, *more)]


def short_run(trace: Path | str = "-") -> list[str]:
    """What Python takes to run the command line with short measurements."""
    # -P: this folder, which would be on the path, has a package that is called rsedge too.
    return ["-P", str(Path(__file__).with_name("traced_run.py")), str(trace)]


def kill_in_distill(folder: Path) -> None:
    """Starts a run and kills it with SIGKILL once distillation has written a checkpoint."""
    checkpoint = folder / "run/stages/distill/resume/resume.safetensors"
    with subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 500
        while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        _, err = child.communicate()
    assert checkpoint.exists(), err


@dataclass(frozen=True)
class Finished:
    """``folder`` holds recipe.yaml, run/ and trace/; ``summary`` is what ``--json`` printed, ``told`` what a terminal showed."""

    folder: Path
    summary: dict[str, Any]
    told: str

    @property
    def run(self) -> Path:
        return self.folder / "run"


def finish(folder: Path) -> Finished:
    """Makes the run."""
    kill_in_distill(folder)
    done = subprocess.run(command(folder, "--json"), capture_output=True, text=True, timeout=800)
    assert done.stdout.count("\n") == 1, done.stderr
    return Finished(folder, json.loads(done.stdout), done.stderr)


def use_small_tiles(patch: pytest.MonkeyPatch) -> None:
    """The run's table of teachers in this process too."""
    rows = rows_of_small_tiles()
    patch.setattr(zoo, "_read", lambda: rows)


@dataclass(frozen=True)
class RealReport:
    """A run's folder, its record, and what its page shows beside it."""

    folder: Path
    report: Report
    assets: ReportAssets


def reported(finished: Finished, folder: Path) -> RealReport:
    """What its report was written from: a copy of the run opened again, every stage as it is."""
    from rsedge.cache.run_folder import open_run_folder
    from rsedge.pipeline.run import Line
    from rsedge.progress import Reporter
    from rsedge.stages.report import report_assets, write_report

    shutil.copytree(finished.run, folder / "run")
    recipe = load_recipe(str(finished.folder / "recipe.yaml"), [])
    with pytest.MonkeyPatch.context() as patch, open_run_folder(folder / "run") as opened, Reporter(True) as reporter:
        use_small_tiles(patch)
        line = Line(recipe, opened, reporter, frozenset())
        line.run_all()
        report = write_report(opened, recipe, line.ctx, line.stages.results, 1.0)
        return RealReport(opened.root, report, report_assets(line.ctx, line.stages.results))
