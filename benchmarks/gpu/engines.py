"""Exported students as TensorRT engines, built and run; and what else runs them on the card."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rsedge.data.errors import RsedgeError
from rsedge.devices.onboard.stats import latency
from rsedge.export.onnx.graph import Deployable
from rsedge.models.structure import load_model
from rsedge.models.students import build_student
from rsedge.pipeline.run import run_recipe
from rsedge.recipe.reading import load_recipe
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, LOGITS, Session
from rsedge.tasks.scene_data import JudgedTiles

if TYPE_CHECKING:
    from on_gpu import Setting

DEVICE = "jetson-orin-nano-8gb"
"""Of TensorRT targets: their ONNX files build on any card."""
STUDENTS = {"cloud-mask": "stem: 16, encoder: [32, 48, 64, 56], blocks: [0, 1, 2, 1], decoder: [48, 48, 32, 16], "
                          "upsample: shuffle, skips: sum",
            "quickstart": "stem: 16, encoder: [32, 48, 64, 96], blocks: [0, 1, 1, 1], decoder: [64, 48, 32, 16]"}  # fmt: skip
"""Shapes of the ready recipes' students, all taught on the quickstart's data, which come with the package."""
BUILDS, RUNS = 3, 300
Tile = np.ndarray
Runner = Callable[[Tile], np.ndarray]


def measure(setting: Setting) -> dict[str, Any]:
    """Rows by student and runtime: latency, and how far the outputs are from OpenVINO in f32; or the exact message."""
    return {"students": {name: _student(name, setting) for name in list(STUDENTS)[: 1 if setting.small else None]}}


def _student(name: str, setting: Setting) -> dict[str, Any]:
    folder, cuda = setting.folder / name, setting.device == "cuda"
    _make(name, folder, setting)
    tiles = JudgedTiles.load(folder / "stages/data/selection.npz").dn[: 4 if setting.small else 32]
    runs = 3 if setting.small else RUNS
    with contextlib.closing(open_session(folder / "stages/export/student-f32.xml", "openvino")) as session:
        wanted = _answers(_of(session), tiles)
        rows = {"openvino f32, this machine's CPU": _timed(_of(session), tiles, runs)}
        graph = Deployable(load_model(folder / "stages/prune/model", build_student), session.input_spec).to(
            setting.device
        )
    for precision in ("fp16", "int8"):
        bundle = folder / f"bundles/tensorrt-{DEVICE}-{precision}"
        rows[f"TensorRT {precision}"] = _tried(functools.partial(_engine, bundle, tiles, wanted, runs))
    onnx = folder / "stages/export/student-f32.onnx"
    rows["ONNX Runtime f32"] = _tried(functools.partial(_onnx, onnx, "CUDA" if cuda else "CPU", tiles, wanted, runs))
    for precision, dtype in (("f32", None), ("fp16", torch.float16)):
        run = captured(graph, tiles[:1], dtype) if cuda else plain(graph)
        way = "torch with CUDA graphs" if cuda else "torch"
        rows[f"{way}, {precision}"] = _timed(run, tiles, runs) | _apart(_answers(run, tiles), wanted)
        if not cuda:
            break
    return rows


def _make(name: str, folder: Path, setting: Setting) -> None:
    """A student of this shape, taught briefly, with its bundles; without gates, which have nothing to do with the card."""
    steps = 4 if setting.small else 80
    targets = f"[openvino-cpu-f32, tensorrt-{DEVICE}-fp16, tensorrt-{DEVICE}-int8]"
    sets = [f"student={{name: slim-unet, {STUDENTS[name]}}}", f"targets={targets}", "gates=[]", f"device={setting.device}",
            f"steps.0.distill.steps={steps}", f"steps.0.distill.views={max(16, steps)}", f"steps.0.distill.validate_every={steps}",
            f"steps.0.distill.checkpoint_every={steps}", f"steps.1.prune.recovery_steps={steps // 4}",
            "steps.2.quantize.max_trials=1",
            "steps.2.quantize.max_drop=1.0"]  # fmt: skip
    run_recipe(load_recipe("quickstart", sets), folder)


def _tried(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return run()
    except (RsedgeError, RuntimeError) as error:
        return {"error": str(error)[:600]}


def _engine(path: Path, tiles: Tile, wanted: np.ndarray, runs: int) -> dict[str, Any]:
    """Engines built anew :data:`BUILDS` times, the best of them timed; then built once more with its kernel times."""
    with Bundle.open(path) as bundle:
        spread = bundle.backend.build(bundle, {"times": BUILDS})["spread"]
        began = time.perf_counter()
        bundle.backend.build(bundle, {})
        again = time.perf_counter() - began
        with contextlib.closing(bundle.session()) as session:
            run = _of(session)
            row = _timed(run, tiles, runs) | _apart(_answers(run, tiles), wanted)
            runner = getattr(session, "runner", None)
    return row | {
        "spread": spread,
        "build_with_timing_cache_seconds": round(again, 2),
        "execution": getattr(runner, "execution", None),
    }


def _onnx(path: Path, device: str, tiles: Tile, wanted: np.ndarray, runs: int) -> dict[str, Any]:
    with contextlib.closing(open_session(path, "onnxruntime", device=device)) as session:
        run = _of(session)
        return _timed(run, tiles, runs) | _apart(_answers(run, tiles), wanted)


def _of(session: Session) -> Runner:
    return lambda tile: session({INPUT: tile})[LOGITS]


def _answers(run: Runner, tiles: Tile) -> np.ndarray:
    return np.concatenate([run(tile[None]).copy() for tile in tiles])


def _apart(found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    return {"max_abs_difference": float(np.abs(found - wanted).max()), "logit_scale": float(np.abs(wanted).max()),
            "classes_agree": float((found.argmax(1) == wanted.argmax(1)).mean())}  # fmt: skip


def _timed(run: Runner, tiles: Tile, runs: int) -> dict[str, Any]:
    samples = []
    for number in range(runs + 3):
        start = time.perf_counter()
        run(tiles[:1])
        samples += [1e3 * (time.perf_counter() - start)] if number >= 3 else []
    return latency(samples)


def plain(graph: nn.Module) -> Runner:
    """A network as torch runs it."""

    def run(tile: Tile) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = graph(torch.from_numpy(tile))[0].numpy()
            return logits

    return run


def captured(graph: nn.Module, tile: Tile, dtype: torch.dtype | None) -> Runner:
    """A network on the card as a CUDA graph, copies of tile and logits included; f32 without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    entry = torch.from_numpy(tile).cuda()

    def forward() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None):
            logits: torch.Tensor = graph(entry)[0]
            return logits

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        out = forward()

    def run(tile: Tile) -> np.ndarray:
        entry.copy_(torch.from_numpy(tile))
        recorded.replay()
        return out.cpu().numpy()

    return run
