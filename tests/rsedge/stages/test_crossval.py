"""In the folds an INT8 target is made with its own settings and answers on its own executable."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from rsedge.cache.run_folder import RunFolder
from rsedge.compress.quantize.ptq import PtqSettings
from rsedge.compress.quantize.qdq import quantize_onnx
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.documents import Document, Place
from rsedge.data.samples.samples import Samples
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.recipe.reading import check_document
from rsedge.runtimes.opening import open_session
from rsedge.stages.crossval import _FoldContext, _int8, _notes
from rsedge.stages.judge import network_of
from rsedge.stages.makers.registry import maker
from rsedge.stages.quantize import int8_groups
from rsedge.tasks.samples import SampleTask

OPENVINO, ORT = "openvino-cpu-int8", "onnxruntime-cpu-int8"
RECIPE: dict[str, Any] = {
    "name": "folds", "threads": 1, "teacher": {"name": "ukis-csmask-4b-l2a"},
    "data": {"samples": {"source": "x.csv"}, "folds": 2, "calibration": {"tiles": 16}},
    "steps": [{"distill": {}}, {"quantize": {}}], "targets": [OPENVINO, ORT],
}  # fmt: skip
SPEC = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="C", tile=1, dtype="float32")


def folds() -> _FoldContext:
    """Of 60 samples of six groups, with nothing to choose: what the folds' rounding needs."""
    recipe = check_document(Document(RECIPE, {(): Place("recipe.yaml", 1)}))
    rng = np.random.default_rng(0)
    task = SampleTask(recipe, SPEC, ("k", "l"), "classification")
    task.samples = Samples(
        "x", rng.normal(size=(60, 3)).astype(np.float32), ("a", "b", "c"), "C", "0",
        group=np.array([f"g{i % 6}" for i in range(60)]), labels=rng.integers(0, 2, 60),
    )  # fmt: skip
    fields = {"recipe": recipe, "spec": SPEC, "classes": ("k", "l"), "task": task, "folders": {}, "run": RunFolder(Path()),
              "teacher_key": "", "reporter": None}  # fmt: skip
    return _FoldContext(**fields)  # type: ignore[arg-type]


def test_every_int8_target_answers_with_its_own_settings_on_its_own_executable(tmp_path: Path) -> None:
    ctx, (_, targets) = folds(), int8_groups(folds().recipe)[1]
    assert isinstance(ctx.task, SampleTask) and [t.name for t in targets] == [ORT]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    inputs, tiles = ctx.task.dn[:8], list(ctx.task.calibration_samples(ctx.known))
    graph = export_onnx(
        Deployable(net, SPEC, "vector"), SPEC, ("k", "l"), tmp_path / "net.onnx", input_dtype="float32"
    ).path
    chosen = {OPENVINO: PtqSettings(), ORT: PtqSettings(preset="mixed", float_layers="first")}
    quantized: Any = SimpleNamespace(records={n: SimpleNamespace(chosen=s) for n, s in chosen.items()})
    found = _int8(net, ctx, inputs, maker("onnxruntime"), targets, quantized)
    quantize_onnx(graph, tmp_path / "int8.onnx", tiles, chosen[ORT])
    session = open_session(tmp_path / "int8.onnx", "onnxruntime", precision="int8", threads=1)
    np.testing.assert_array_equal(found, ctx.task.predict(session, inputs))
    session.close()
    other = _int8(net, ctx, inputs, *int8_groups(ctx.recipe)[0], quantized)
    assert other.shape == found.shape and not np.array_equal(other, found)
    assert [network_of(t) for t in ctx.recipe.parsed_targets] == [OPENVINO, ORT]


def test_what_is_to_be_known_of_a_target_stands_at_that_target() -> None:
    task = folds().task
    assert isinstance(task, SampleTask)
    quantized: Any = SimpleNamespace(
        records={OPENVINO: SimpleNamespace(trained=False), ORT: SimpleNamespace(trained=True)}
    )
    notes = _notes(task.folds.judge.note, ("f32", OPENVINO, ORT), quantized)
    assert "trained under rounding" in notes[ORT] and "trained under rounding" not in notes[OPENVINO]
    assert all("The cross-validated set is small" in text and "groups" in text for text in notes.values())
    many = dataclasses.replace(task.samples, group=np.array([f"g{i:02}" for i in range(60)]))
    task = folds().task
    task.samples = many  # type: ignore[attr-defined]
    assert _notes(task.folds.judge.note, ("f32",), None) == {}
