"""Every family's deployable graphs through the functions that recipes use: distill, prune, export, quantize, compile.

Reduced width, random weights: what is shown is that the steps fit each architecture, not that a student learns.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.distill.loss_table import LogitLoss
from rsedge.compress.distill.objective import Objective
from rsedge.compress.distill.statistics import statistics_of
from rsedge.compress.distill.teacher_outputs import LiveOutputs, PartOutputs
from rsedge.compress.distill.training import DistillSettings, Source, distill
from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.compress.prune.pruning import LatencyEstimate, PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.compress.quantize.ptq import PtqSettings, quantize, quantize_part
from rsedge.compress.quantize.qdq import quantize_onnx, quantize_part_onnx
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import parity
from rsedge.export.parts import export_part, part_parity, run_part_onnx, save_ir
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.export.targets.tensorrt import check_typed, compiles, type_for_tensorrt
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.models.structure import load_model, save_model
from rsedge.models.zoo import TeacherRow
from rsedge.runtimes.file_checks import F32_TOLERANCE, Difference, agree
from rsedge.tasks.boxes import training_boxes
from tests.compress.prune.estimates import by_estimates
from tests.compress.real_tiles import compile_f32
from tests.conftest import Results
from tests.models.reduced import deployed, reduced_row, scenes
from tests.models.small import random_net

# One row per family and per kind of graph in it; those of FAST run in every test run.
FAST = ("ssl4eo-l-etm-sr-vits", "seco-resnet18", "geoclip-location", "presto", "satmae-temporal-vitl")
NAMES = [
    "ssl4eo-l-etm-sr-vits", "seco-resnet18", "geoclip-location", "presto", "gfm-swinb",
    "glcnet-rgb", "satmae-ms-vitb", "spectralgpt-vitb", "satlas-s2-ms-swinv2t", "satclip-l10", "csp-fmow", "range-plus",
    "galileo-nano-series", "so2sat-resnet20", "streetclip", "av-resnet50-image", "gair-street", "gair-query",
    "ukis-csmask-6b-l1c", "rvsa-vitaeb-kvdiff", "rvsa-vitb-upernet-loveda",
    "hypersigma-cls-b", "hypersigma-cd-b-5",
]  # fmt: skip
PARTS = [
    "satmae-temporal-vitl", "rsprompter-sam-base", "l-ffca-yolo", "text2earth-unet", "crs-diff-control", "crs-diff-decoder",
    "earthdial", "aquila",
    "rvsa-vitb-oriented-dior",
]  # fmt: skip
LEAST = {"hypersigma-cd-b-5": 0.95, "aquila": 0.99}
"""What max_layer_ratio leaves of those in which little can be cut."""
VIEWS = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def marked(names: list[str]) -> list[Any]:
    return [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names]


def first_tensor(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    return found if isinstance(found, Tensor) else found[0]


@dataclass(frozen=True)
class Distance:
    """Hooks of pruning: how far a network is from the unpruned one on its inputs."""

    reference: Tensor
    inputs: tuple[Tensor, ...]

    def score(self, module: nn.Module) -> float:
        with torch.no_grad():
            found = first_tensor(module(*self.inputs))
        return -float((found - self.reference).square().mean())

    def gradients(self, module: nn.Module, batch: int) -> None:
        found = first_tensor(module(*self.inputs))
        (found - self.reference - 0.1 * (batch + 1)).square().mean().backward()  # type: ignore[no-untyped-call]

    def latency(self, module: nn.Module) -> LatencyEstimate:
        ms = 0.01 + count_macs(module, self.inputs) / 1e6
        return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="predicted")


def pruned(part: Part, workdir: Path, name: str) -> nn.Module:
    """A tenth of the parameters gone, where as many can be, in one step by Taylor scores; the distance may be any."""
    inputs = tuple(t for t in part.inputs.values())
    with torch.no_grad():
        hooks = Distance(first_tensor(part.net(*inputs)), inputs)
    net = copy.deepcopy(part.net).requires_grad_(True)
    settings = PruneSettings(
        target=PruneTarget(params_ratio=LEAST.get(name, 0.9)),
        steps=1,
        round_to=2,
        min_gain=0.0,
        max_drop=1e9,
        taylor_batches=2,
    )
    taught = PruneHooks(
        hooks.score, hooks.latency, by_estimates(hooks.latency), lambda module, step: None, hooks.gradients
    )
    small, record = prune(net, inputs, settings, taught, workdir=workdir)
    assert record.outcome == "applied", record.reason
    assert count_params(small) < count_params(part.net)
    return small


def taught(row: TeacherRow, teacher: nn.Module, workdir: Path) -> nn.Module:
    """A student of the same shape, two steps of distillation away from its own random start."""
    kind: LogitLoss = "embedding" if row.task == "embedding" else "classes"
    source = images(row, teacher)
    found = learned(source, random_net(row, seed=1), kind, workdir)
    x, outputs = source.batch(range(VIEWS))
    with torch.no_grad():
        loss = Objective(kind)(
            found(torch.from_numpy(x)), torch.from_numpy(outputs["logits"]), statistics=statistics_of(source)["logits"]
        )
        assert torch.isfinite(loss)
    return found


def images(row: TeacherRow, teacher: nn.Module) -> LiveOutputs:
    """Views and what a student learns of the teacher's outputs on them."""

    def outputs(x: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            logits = teacher(torch.from_numpy(x)).numpy()
        return {"logits": training_boxes(logits, overlap=0.5) if row.task == "detection" else logits}

    views = [dn[0] for dn in scenes(row.input_spec, VIEWS)]
    return LiveOutputs(
        lambda i: views[i], lambda dn: outputs(row.input_spec.normalise(dn)), row.input_spec.normalise, VIEWS
    )


def learned(source: Source, student: nn.Module, kind: LogitLoss, workdir: Path) -> nn.Module:
    """The student after two steps, which changed it."""
    before = copy.deepcopy(student.state_dict())
    settings = DistillSettings(steps=2, batch=2, lr=1e-3, loss=kind, autocast="off")
    found, record = distill(source, student.requires_grad_(True).train(), settings, workdir, seed=0)
    assert record.steps == 2
    assert any(not torch.equal(v, before[k]) for k, v in found.state_dict().items())
    return found.eval()


def lessons(row: TeacherRow, part: Part) -> tuple[Source, LogitLoss]:
    """What a part's student learns from, and by which loss. Detectors of one part take images and learn boxes, as in recipes."""
    if part.outputs == ("candidates",):
        return images(row, part.net), "boxes"
    return PartOutputs(part, recorded(part)), "embedding" if part.outputs in (("tokens",), ("features",)) else "outputs"


def recorded(part: Part) -> list[dict[str, np.ndarray]]:
    """Samples around the part's own example."""
    return [{k: v.numpy() + np.float32(0.01 * i) for k, v in part.inputs.items()} for i in range(VIEWS)]


def worst(found: Mapping[str, float | Difference]) -> float:
    """Largest difference of the runtimes over the largest output (at least 1)."""
    return max(d if isinstance(d, float) else d.max_abs / max(1.0, d.logit_scale) for d in found.values())


@pytest.mark.parametrize("name", marked(NAMES))
def test_a_family_goes_all_the_way(name: str, tmp_path: Path, results: Results) -> None:
    row = reduced_row(name)
    spec = row.input_spec
    student = taught(row, random_net(row), tmp_path)
    part = deployed(row, student)["net"] if family(row.family).parts is None else None
    assert part is not None
    small = pruned(part, tmp_path / "prune", name)
    save_model(small, tmp_path / "model", row.name, row.arch)
    again = load_model(tmp_path / "model", lambda factory, arch: family(row.family).build(**arch))

    graph = Deployable(again, spec, "map" if row.task == "segmentation" else "vector")
    classes = [f"c{i}" for i in range(graph.classes)]
    source = export_onnx(graph, spec, classes, tmp_path / "f32.onnx", opset=19, input_dtype="float32").path
    model = read_openvino(source)
    save_openvino(model, tmp_path / "f32.xml", spec, classes)
    tiles = scenes(spec)
    found = parity(graph, source, tmp_path / "f32.xml", tiles, threads=1)
    assert agree(found), found

    calibration = [dn[0].astype(np.float32) for dn in scenes(spec, 8, seed=1)]
    int8 = quantize(model, calibration, PtqSettings())
    assert any(op.get_type_name() == "FakeQuantize" for op in int8.get_ops())
    logits = compile_f32(int8)({0: calibration[0][None]})[0]
    assert np.isfinite(logits).all()
    quantize_onnx(source, tmp_path / "int8.onnx", calibration)
    half = type_for_tensorrt(source, tmp_path / "fp16.onnx", "fp16", "10.3").onnx.path
    eight = type_for_tensorrt(tmp_path / "int8.onnx", tmp_path / "int8-typed.onnx", "int8", "10.3").onnx.path
    gaps = [check_typed(source, p, tiles, threads=1) for p in (half, tmp_path / "int8.onnx", eight)]
    check_typed_keeps(*(gap.max_abs / gap.logit_scale for gap in gaps))
    check_compiles(half, eight)
    results[f"family {row.family}"] = {"compressed": f"distilled, pruned, int8, compiles ({worst(found):.0e})"}


def check_typed_keeps(half: float, int8: float, eight: float) -> None:
    """Differences from f32: fp16 stays near it, and fp16 between INT8 layers adds little to what INT8 itself costs."""
    assert half < 5e-3 and eight < 1.3 * int8 + 5e-3, (half, int8, eight)


def check_compiles(*paths: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for path in paths:
        gate = compiles(path)
        assert gate.ok, gate.message


@pytest.mark.parametrize("name", marked(PARTS))
def test_parts_go_all_the_way(name: str, tmp_path: Path, results: Results) -> None:
    row = reduced_row(name)
    far = 0.0
    students = deployed(row, random_net(row, seed=1))
    for label, part in deployed(row, random_net(row)).items():
        source, kind = lessons(row, part)
        net = learned(source, students[label].net, kind, tmp_path)
        net = pruned(Part(net, part.inputs, part.outputs), tmp_path / label, name)
        # Recovery is distillation once more.
        net = learned(source, net, kind, tmp_path)
        small = Part(net, part.inputs, part.outputs)
        path = export_part(small, tmp_path / f"{label}.onnx", opset=19).path
        model = read_openvino(path)
        save_ir(model, tmp_path / f"{label}.xml")
        inputs = {key: value.numpy() for key, value in part.inputs.items()}
        found = part_parity(small, path, tmp_path / f"{label}.xml", [inputs])
        assert max(found.values()) <= F32_TOLERANCE, (label, found)
        far = max(far, worst(found))
        samples = recorded(part)
        int8 = quantize_part(model, samples, PtqSettings())
        assert any(op.get_type_name() == "FakeQuantize" for op in int8.get_ops())
        answers = compile_f32(int8)(inputs)
        assert all(np.isfinite(answer).all() for answer in answers.values())
        quantize_part_onnx(path, tmp_path / "int8.onnx", samples)
        half = type_for_tensorrt(path, tmp_path / "fp16.onnx", "fp16", "10.3").onnx.path
        eight = type_for_tensorrt(tmp_path / "int8.onnx", tmp_path / "int8-typed.onnx", "int8", "10.3").onnx.path
        half_off, int8_off, eight_off = (off(path, p, inputs) for p in (half, tmp_path / "int8.onnx", eight))
        check_typed_keeps(half_off, int8_off, eight_off)
        check_compiles(half, eight)
    results[f"family {row.family}"] = {"compressed": f"distilled, pruned, int8, compiles ({far:.0e})"}


def off(f32: Path, made: Path, inputs: dict[str, np.ndarray]) -> float:
    """Largest difference from the f32 file, relative to its output's largest value."""
    wanted, found = (run_part_onnx(path, inputs, 1, as_written=True) for path in (f32, made))
    return max(float(np.abs(found[k] - wanted[k]).max() / np.abs(wanted[k]).max()) for k in wanted)
