"""The INT8 roofline of a machine: how many multiply-accumulates a second OpenVINO reaches where nothing but arithmetic counts.

A large matrix product and a large convolution, rounded as NNCF rounds; the better of the two is the peak. They run in the same race
as contenders, so that a share of the peak is a ratio of processor times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nncf
import numpy as np
import openvino as ov
from openvino import opset15 as op

from rsedge.compress.quantize.ptq import quiet_nncf
from rsedge.devices.measure.decide import LOW, Race
from rsedge.runtimes.openvino.core import settings, shared_core


@dataclass(frozen=True)
class Peak:
    """One large operation.

    Attributes:
        weights: (out, in) of a matrix product, (out, in, k, k) of a convolution.
        entry: the input's shape.
    """

    weights: tuple[int, ...]
    entry: tuple[int, ...]

    @property
    def macs(self) -> int:
        positions = int(np.prod(self.entry[2:])) if len(self.weights) == 4 else self.entry[0]
        return int(np.prod(self.weights)) * positions

    def model(self) -> ov.Model:
        """The operation in INT8, between a scaling and a sum that keep NNCF from leaving it out."""
        draw = np.random.default_rng(0)
        weights = op.constant(draw.normal(0, 0.05, self.weights).astype(np.float32))
        entry = op.parameter(self.entry, np.float32, name="x")
        if len(self.weights) == 4:
            edge = self.weights[-1] // 2
            out = op.convolution(entry, weights, [1, 1], [edge, edge], [edge, edge], [1, 1])
        else:
            out = op.matmul(entry, weights, False, True)
        samples = [draw.normal(size=self.entry).astype(np.float32) for _ in range(2)]
        with quiet_nncf():
            return nncf.quantize(ov.Model([op.relu(out)], [entry]), nncf.Dataset(samples), subset_size=len(samples))


PEAKS = {
    "peak: matrix product": Peak((1024, 1024), (1024, 1024)),
    "peak: convolution 3x3": Peak((256, 256, 3, 3), (1, 256, 40, 40)),
}


@functools.cache
def _compiled(name: str) -> Any:
    return shared_core().compile_model(PEAKS[name].model(), "CPU", settings("CPU", "int8", 1))


def peak_runners() -> dict[str, Callable[[], Any]]:
    """Runs of each peak on one thread, by name."""
    found = {}
    for name, peak in PEAKS.items():
        request = _compiled(name).create_infer_request()
        found[name] = functools.partial(request.infer, {0: np.ones(peak.entry, np.float32)})
    return found


def share_of_peak(raced: Race, name: str, macs: int | None) -> dict[str, float] | None:
    """MACs per time of one in the race over those of the better peak, with the interval of the ratio of times."""
    if macs is None:
        return None
    peak = _better(raced)
    ratio, work = raced.ratio(peak, name), macs / PEAKS[peak].macs
    return {"value": work * ratio.value, "low": work * ratio.low, "high": work * ratio.high}


def measured_peak(raced: Race) -> dict[str, Any]:
    """Which operation is the peak, and its MACs a second (10^9) by processor time, where that can be read."""
    peak = _better(raced)
    turns = raced.turns[peak]
    ms = float(np.quantile(turns.wall if turns.processor is None else turns.processor, LOW))
    return {"by": peak.removeprefix("peak: "), "gmacs": PEAKS[peak].macs / ms / 1e6}


def _better(raced: Race) -> str:
    first = next(iter(PEAKS))
    return min(PEAKS, key=lambda p: raced.ratio(p, first).value / PEAKS[p].macs)
