"""One small real run, whose report the tests of this folder look at: the teacher is real, its student hardly trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rsedge.recipe_io import load_recipe
from rsedge.reports.assets import ReportAssets
from rsedge.reports.schema import Report

INT8, F32, JETSON = "openvino-cpu-int8", "openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"
RECIPE = f"""\
name: small
threads: 1
teacher: {{name: ukis-csmask-4b-l2a}}
data:
  train: [{{source: spyndex-sentinel2}}]
  test: {{source: spyndex-sentinel2, simulated_clouds: 2}}
  calibration: {{tiles: 4}}
  block: 50
student: {{name: slim-unet, stem: 8, encoder: [8, 16], blocks: [0, 0], decoder: [16, 8]}}
steps:
  - distill: {{steps: 60, views: 16, batch: 4, validate_every: 20}}
  - prune: {{steps: 1, round_to: 4, recovery_steps: 2, taylor_batches: 1, max_drop: 1.0, min_gain: 0.0,
             target: {{macs_ratio: 0.9}}, latency_on: {JETSON}}}
  - quantize: {{max_trials: 1, max_drop: 1.0}}
targets: [{INT8}, {F32}, {JETSON}]
gates:
  - {{metric: kappa, max_drop: 2.0}}
  - {{metric: agreement, min: 0.999999, target: {F32}}}
  - {{metric: latency, min_speedup: 1000, over: teacher-openvino-f32, target: {INT8}}}
  - {{metric: size, max: 5000000}}
  - {{metric: latency, max: 1000, target: {JETSON}}}
"""


@dataclass(frozen=True)
class RealRun:
    """The run's folder, its record, and what its page shows beside it."""

    folder: Path
    report: Report
    assets: ReportAssets


def real_run(folder: Path) -> RealRun:
    """Runs the recipe as ``rsedge run`` does."""
    from rsedge.pipeline import Line
    from rsedge.progress import Reporter
    from rsedge.run_folder import open_run_folder
    from rsedge.stages_report import report_assets, write_report

    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path), [])
    with open_run_folder(folder / "run") as run, Reporter(True) as reporter:
        line = Line(recipe, run, reporter, frozenset())
        line.run_all()
        report = write_report(run, recipe, line.shop, line.stages.results, 1.0)
        return RealRun(run.root, report, report_assets(line.shop, line.stages.results))
