"""Networks in torch as OpenVINO runs them on this machine's CPU, raced against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import openvino as ov
import torch
from torch import Tensor, nn

from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio
from rsedge.devices.measure.decide import Race, race
from rsedge.models.layer_shape import LayerShape
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.stages.layer_latency import layers_here, whole_here

THREADS = 2


def runner(net: nn.Module, example: Tensor) -> Callable[[], Any]:
    """What runs a network once, f32, on :data:`THREADS` threads, on an input that lies there already."""
    with torch.no_grad():
        model = ov.convert_model(net.eval(), example_input=example, input=[list(example.shape)])
    request = shared_core().compile_model(model, "CPU", settings("CPU", "f32", THREADS)).create_infer_request()
    request.get_input_tensor(0).data[:] = example.numpy()
    return request.infer


def raced(nets: Mapping[str, nn.Module], example: Tensor, seconds: float) -> Race:
    """All networks in turns, so many seconds each."""
    return race({name: runner(net, example) for name, net in nets.items()}, seconds=seconds)


class Clock:
    """The hooks of :func:`rsedge.compress.prune.pruning.prune` that ask this machine."""

    def __init__(self, example: Tensor, seconds: float) -> None:
        self.example, self.seconds = example, seconds

    def latency(self, net: nn.Module) -> LatencyEstimate:
        found = raced({"it": net}, self.example, self.seconds)
        low, high = found.ms_interval("it")
        return LatencyEstimate(ms=found.ms("it"), low=low, high=high, provenance="measured")

    def compare(self, before: nn.Module, candidate: nn.Module) -> LatencyRatio:
        ratio = raced({"before": before, "candidate": candidate}, self.example, self.seconds).ratio(
            "candidate", "before"
        )
        return LatencyRatio(**ratio.model_dump(), planned=ratio.value, provenance="measured")

    def layers(self, net: nn.Module, shapes: Sequence[LayerShape]) -> tuple[float, list[float], Literal["measured"]]:
        return whole_here(runner(net, self.example)), layers_here(shapes, "f32", THREADS), "measured"
