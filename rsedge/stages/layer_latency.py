"""Milliseconds of single layers on a target: each shape timed alone in processor time where the target is this machine's CPU, else
predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rsedge.devices.measure.decide import race
from rsedge.devices.predict.latency import predict_kernels
from rsedge.devices.predict.onnx_graph import Kernel, KernelClass
from rsedge.export.targets.openvino_layers import layer_model
from rsedge.models.layer_shape import LayerShape
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.openvino.core import settings, shared_core

Runner = Callable[[], Any]
TOGETHER = 8
"""Layers whose models are in memory at once and take turns."""
SECONDS, TURN = 0.03, 0.002
"""Of turns per layer, and of one turn."""
WHOLE_SECONDS = 0.5


def layers_here(shapes: Sequence[LayerShape], precision: str, threads: int | None) -> list[float]:
    """Milliseconds of each shape on OpenVINO, as one inference takes of this machine's processor."""
    found: list[float] = []
    for start in range(0, len(shapes), TOGETHER):
        made = [_runner(shape, precision, threads) for shape in shapes[start : start + TOGETHER]]
        raced = race({str(i): run for i, (run, _) in enumerate(made)}, seconds=SECONDS, turn_seconds=TURN, warmup=2)
        found += [raced.used_ms(str(i)) / copies for i, (_, copies) in enumerate(made)]
    return found


def _runner(shape: LayerShape, precision: str, threads: int | None) -> tuple[Runner, int]:
    """What runs a layer's model on inputs that lie there already, and how many layers that are."""
    model, copies = layer_model(shape)
    request = shared_core().compile_model(model, "CPU", settings("CPU", precision, threads)).create_infer_request()
    for i in range(len(model.inputs)):
        request.get_input_tensor(i).data[:] = np.random.default_rng(i).standard_normal(shape.input, dtype=np.float32)
    return request.infer, copies


def whole_here(run: Runner, seconds: float = WHOLE_SECONDS) -> float:
    """Milliseconds of a whole network by the same clock."""
    return race({"whole": run}, seconds=seconds).used_ms("whole")


def layers_predicted(shapes: Sequence[LayerShape], target: Target) -> list[float]:
    """Milliseconds of each shape by the roofline of a target's device."""
    return predict_kernels([kernel(shape) for shape in shapes], target)


def kernel(shape: LayerShape) -> Kernel:
    """A layer as the prediction counts it; the two products of attention as one."""
    read, written = math.prod(shape.input), shape.positions * shape.out
    if shape.kind == "attention":
        tokens, width = shape.input[-2:]
        return Kernel(
            "attention", "MatMul", "attention", 2 * read * tokens, 3 * read, 0, written, columns=tokens, depth=width
        )
    depth = shape.cin // shape.groups * math.prod(shape.kernel)
    kind: KernelClass = "matmul" if shape.kind == "linear" else "depthwise" if shape.depthwise else "conv"
    op = {"linear": "MatMul", "conv": "Conv", "transposed": "ConvTranspose"}[shape.kind]
    places = read // shape.cin if shape.kind == "transposed" else shape.positions
    macs, weights = depth * shape.out * places, depth * shape.out
    return Kernel(shape.kind, op, kind, macs, read, weights, written, columns=shape.out // shape.groups, depth=depth)
