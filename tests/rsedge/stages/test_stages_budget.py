"""Budgets of a run's targets: measured where the run measured, predicted elsewhere, and a note where none is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, save_model

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results, StageResult
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.devices.measure.protocol import measure
from rsedge.progress import Reporter
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.results.records import Verify
from rsedge.stages.budget import budgets
from rsedge.stages.context import RunContext

JETSON = "tensorrt-jetson-orin-nx-16gb-int8"
RECIPE = f"""\
name: tiny
teacher: {{name: ukis-csmask-4b-l2a}}
data: {{train: [{{source: spyndex-sentinel2}}], test: {{source: spyndex-sentinel2}}}}
steps: [distill, quantize]
targets: [openvino-cpu-int8, {JETSON}]
mission: flight.yaml
"""


def student(folder: Path) -> None:
    shapes = {"x": [1, 4, 64, 64], "y": [1, 3, 64, 64]}
    info = {n: helper.make_tensor_value_info(n, 1, s) for n, s in shapes.items()}
    weights = numpy_helper.from_array(np.zeros((3, 4, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "g", [info["x"]], [info["y"]], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save_model(model, str(folder / "student-f32.onnx"))


def run(folder: Path, mission: str) -> tuple[Any, Any]:
    """What ``budgets`` finds after a run that measured the CPU target."""
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "flight.yaml").write_text(mission)
    student(folder)
    recipe: Recipe = load_recipe(folder / "recipe.yaml")
    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in ("blue", "green", "red", "nir")), tile=64)
    folders = {"export": folder}
    ctx = RunContext(
        recipe, spec, ("clear", "cloud", "shadow"), [], folders, RunFolder(folder), "key", Reporter(quiet=True)
    )
    measured = measure(lambda _: None, {}, seconds=0.01, warmup=1, labels={"device": "cpu"})
    value = Verify(targets={}, steps={}, measurements={"openvino-cpu-int8": measured}, layers=[])
    return budgets(recipe, ctx, Results(verify=StageResult("verify", folder, value, "", 0.0, reused=False)))


def test_one_budget_per_target(tmp_path: Path) -> None:
    found, notes = run(tmp_path, "flight:\ncompute: {idle_w: 3, active_w: 9}\n")
    assert notes == []
    assert [(b.target, b.provenance) for b in found] == [("openvino-cpu-int8", "derived"), (JETSON, "predicted")]
    assert found[0].figures["latency"].provenance == "measured"


def test_a_target_without_watts_gets_a_note(tmp_path: Path) -> None:
    found, (note,) = run(tmp_path, "flight:\n")
    assert [b.target for b in found] == [JETSON]
    assert note.startswith("No mission budget for openvino-cpu-int8") and "compute.idle_w" in note
