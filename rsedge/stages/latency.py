"""Latencies of networks on a target, as decisions need them: measured side by side where the target is this machine's CPU and its
backend times networks that are not exported yet, else predicted (another runtime's latency is not OpenVINO's); and predicted where
the machine is too noisy to tell."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.measure.decide import Race, Ratio, agreed, race
from rsedge.devices.predict.latency import predict_target
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.models.black_box import black_box_in
from rsedge.models.layer_shape import LayerShape
from rsedge.recipe.checks import measured_here
from rsedge.recipe.schema import parse_target
from rsedge.stages.context import RunContext
from rsedge.stages.layer_latency import layers_here, layers_predicted, whole_here
from rsedge.stages.makers.registry import maker

Runner = Callable[[], Any]
SECONDS, MORE_SECONDS = 0.8, 2.5
"""Of turns per network; the second where the first could not tell."""


@dataclass(frozen=True)
class Contestant:
    """A network as it is timed beside others.

    Attributes:
        run: runs it once; None where the target is not here.
        predict: its predicted latency.
    """

    run: Runner | None
    predict: Callable[[], LatencyEstimate]

    def apart(self) -> Contestant:
        """The same without the network: what is predicted of it is worked out now."""
        predicted = self.predict()
        return Contestant(self.run, lambda: predicted)


class TargetLatency:
    """Latencies on one target of the recipe."""

    def __init__(self, ctx: RunContext, target: str) -> None:
        self.ctx, self.target = ctx, parse_target(target)
        self.maker = maker(self.target.backend.name)
        self.here = measured_here(self.target) and self.maker.times_networks
        self._predicted: weakref.WeakKeyDictionary[nn.Module, LatencyEstimate] = weakref.WeakKeyDictionary()

    def estimate(self, module: nn.Module) -> LatencyEstimate:
        """Of one network alone: measured here where that can be, with an interval; else predicted."""
        return estimates({"it": self.contestant(module)})[0]["it"]

    def contestant(self, module: nn.Module) -> Contestant:
        """A network ready to be timed beside others."""
        return Contestant(self.runner(module) if self.here else None, lambda: self.predicted(module))

    def runner(self, module: nn.Module) -> Runner:
        """What runs a network once on the target."""
        return self.maker.runner(self.ctx, module, self.target)

    def predicted(self, module: nn.Module) -> LatencyEstimate:
        """From the graph alone: the same on every machine, under every load."""
        if module not in self._predicted:
            self._predicted[module] = self._predict(module)
        return self._predicted[module]

    def layers(
        self, module: nn.Module, shapes: Sequence[LayerShape]
    ) -> tuple[float, list[float], Literal["measured", "predicted"]]:
        """Milliseconds of a network and of single layers by one clock (measured in the target's precision, INT8 in float)."""
        if not self.here:
            return self.predicted(module).ms, layers_predicted(shapes, self.target), "predicted"
        made = "f32" if self.target.quantized else self.target.precision
        return whole_here(self.runner(module)), layers_here(shapes, made, self.ctx.threads), "measured"

    def comparison(self, limit: float | None) -> Callable[[nn.Module, nn.Module], LatencyRatio]:
        """What compares a network with one made of it, where a ratio of at most ``limit`` is asked for.

        None: what is measured decides, with its interval, also where that holds any limit.
        """
        return functools.partial(self._compare, limit=limit)

    def _compare(self, before: nn.Module, candidate: nn.Module, limit: float | None) -> LatencyRatio:
        foreseen = self.predicted(candidate).ms / self.predicted(before).ms
        if not self.here:
            return _predicted_ratio(foreseen, foreseen, "")
        runners = {"before": self.runner(before), "candidate": self.runner(candidate)}
        raced = race(runners, seconds=SECONDS)
        if raced.too_noisy() or limit is None or raced.ratio("candidate", "before").says(limit) is None:
            raced = race(runners, seconds=MORE_SECONDS)
        return decided(raced, foreseen, limit)

    def _predict(self, module: nn.Module) -> LatencyEstimate:
        ctx = self.ctx
        if (file := black_box_in(module)) is not None:
            found = predict_target(file.path, self.target.name)
        else:
            with TemporaryFolder() as folder:
                graph = Deployable(module, ctx.spec, ctx.task.output)
                path = export_onnx(graph, ctx.spec, ctx.classes, folder / "student.onnx").path
                found = predict_target(path, self.target.name)
        return LatencyEstimate(ms=found.mid_ms, low=found.low_ms, high=found.high_ms, provenance="predicted")


def estimates(contestants: Mapping[str, Contestant]) -> tuple[dict[str, LatencyEstimate], str]:
    """Of several networks, each on its target, timed side by side; and what is to be said of the machine.

    All are measured, or all are predicted.
    """
    runners = {name: one.run for name, one in contestants.items() if one.run is not None}
    noise: str | None = ""
    if len(runners) == len(contestants):
        raced = race(runners, seconds=SECONDS)
        noise = raced.too_noisy()
        if not noise:
            return _beside_each_other(raced), ""
    return {name: one.predict() for name, one in contestants.items()}, noise or ""


def _beside_each_other(raced: Race) -> dict[str, LatencyEstimate]:
    """Latencies whose ratios are those of the clock that decides; the slowest's, which noise touches least, gives the scale."""
    slowest = max(raced.turns, key=raced.ms)
    scale, (low, high) = raced.ms(slowest), raced.ms_interval(slowest)
    found = {}
    for name in raced.turns:
        ratio = raced.ratio(name, slowest)
        found[name] = LatencyEstimate(
            ms=scale * ratio.value, low=low * ratio.low, high=high * ratio.high, provenance="measured"
        )
    return found


def decided(raced: Race, foreseen: float, limit: float | None) -> LatencyRatio:
    """The ratio of ``candidate`` over ``before`` that decides about ``limit``, if there is one: measured where it can tell, else
    predicted."""
    noise, ratio = raced.too_noisy(), raced.ratio("candidate", "before")
    words = f"{ratio.value:.3f} of the {raced.clock} before it ({ratio.low:.3f} to {ratio.high:.3f})"
    if noise is not None:
        return _predicted_ratio(foreseen, foreseen, f"{noise}; the prediction decides")
    planned = agreed(ratio, foreseen)
    if limit is not None and ratio.says(limit) is None:
        return _predicted_ratio(foreseen, planned, f"measured {words} cannot tell; the prediction decides")
    return _measured_ratio(ratio, planned, f"{words}, {raced.count} turns")


def _measured_ratio(ratio: Ratio, planned: float, note: str) -> LatencyRatio:
    return LatencyRatio(
        value=ratio.value, low=ratio.low, high=ratio.high, planned=planned, provenance="measured", note=note
    )


def _predicted_ratio(value: float, planned: float, note: str) -> LatencyRatio:
    return LatencyRatio(value=value, low=value, high=value, planned=planned, provenance="predicted", note=note)
