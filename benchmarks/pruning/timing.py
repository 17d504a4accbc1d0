"""Networks in torch as OpenVINO runs them on this machine's CPU, raced against each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import openvino as ov
import torch
from torch import Tensor, nn

from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio
from rsedge.devices.measure.decide import Race, race
from rsedge.models.layer_shape import LayerShape
from rsedge.models.structure import tensors_digest
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.stages.layer_latency import layers_here, whole_here

THREADS = min(2, len(os.sched_getaffinity(0)))


def _runner(net: nn.Module, example: Tensor) -> Callable[[], Any]:
    """What runs a network once, f32, on :data:`THREADS` threads, on an input that lies there already."""
    with torch.no_grad():
        model = ov.convert_model(net.eval(), example_input=example, input=[list(example.shape)])
    request = shared_core().compile_model(model, "CPU", settings("CPU", "f32", THREADS)).create_infer_request()
    request.get_input_tensor(0).data[:] = example.numpy()
    return request.infer


class Clock:
    """Networks raced against each other, each compiled once, and the hooks of :func:`rsedge.compress.prune.pruning.prune` that ask
    this machine."""

    def __init__(self, example: Tensor, seconds: float) -> None:
        self.example, self.seconds = example, seconds
        self.known: dict[str, Callable[[], Any]] = {}

    def raced(self, nets: Mapping[str, nn.Module], seconds: float) -> Race:
        """All networks in turns, so many seconds each."""
        return race({name: self.runner(net) for name, net in nets.items()}, seconds=seconds)

    def runner(self, net: nn.Module) -> Callable[[], Any]:
        """To convert and compile a network takes seconds, so one with the same tensors is not compiled again."""
        key = tensors_digest(net)
        if key not in self.known:
            self.known[key] = _runner(net, self.example)
        return self.known[key]

    def latency(self, net: nn.Module) -> LatencyEstimate:
        found = self.raced({"it": net}, self.seconds)
        low, high = found.ms_interval("it")
        return LatencyEstimate(ms=found.ms("it"), low=low, high=high, provenance="measured")

    def compare(self, before: nn.Module, candidate: nn.Module) -> LatencyRatio:
        ratio = self.raced({"before": before, "candidate": candidate}, self.seconds).ratio("candidate", "before")
        return LatencyRatio(**ratio.model_dump(), planned=ratio.value, provenance="measured")

    def layers(self, net: nn.Module, shapes: Sequence[LayerShape]) -> tuple[float, list[float], Literal["measured"]]:
        return whole_here(self.runner(net)), layers_here(shapes, "f32", THREADS), "measured"
