"""Predicted latency and memory of an ONNX file on a device profile: always an interval, always called predicted.

Per fused kernel the time is the larger of compute and memory traffic plus the cost of starting it
(:mod:`rsedge.devices.predict.roofline`); the kernels and the cost of a call add up. The width of the interval comes from the errors
on measured rows that the fit had not seen, and grows where the network or the device is unlike those rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.devices.predict.efficiency import Efficiencies, architecture_of, efficiencies_for
from rsedge.devices.predict.onnx_graph import GraphCost, Kernel, count_macs, graph_cost
from rsedge.devices.predict.roofline import BYTES, Figures, Work, call_ms, kernel_ms, start_ms, work_of
from rsedge.devices.profiles.profile import DeviceProfile, check_target
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.registry import RuntimeName

__all__ = ["Prediction", "count_macs", "predict", "predict_graph", "predict_target"]

METHOD = "roofline v2"
SIZE_RANGE = 3.0
"""A network up to this many times smaller or larger than the evidence counts as known."""


class Prediction(Record):
    """A predicted latency (ms) with an interval that aims at holding 9 devices of 10, and predicted memory (MB, 1e6 bytes).

    ``outside`` says what the evidence behind the figures does not cover; empty where it covers all.
    """

    provenance: Literal["predicted"] = "predicted"
    device: str
    runtime: str
    precision: str
    low_ms: float
    mid_ms: float
    high_ms: float
    memory_mb: float = Field(description="weights, peak live activations and the runtime's own")
    basis: str = Field(description="method, evidence and the reason for the width of the interval")
    outside: list[str] = Field(default_factory=list)
    macs: int
    kernels: int
    share: dict[str, float] = Field(description="share of the time per class of operation, for starts and for the call")

    def __str__(self) -> str:
        return f"predicted {self.low_ms:.2f}-{self.high_ms:.2f} ms"


def predict_target(onnx_path: str | Path, target: str, profiles: Iterable[str | Path] = ()) -> Prediction:
    """Predicted latency of an ONNX file on a target such as ``tensorrt-jetson-orin-nano-8gb-fp16``; ``profiles`` are the
    user's own profile files.

    Raises:
        RequestError: an impossible target, or an ONNX file that cannot be read.
    """
    parsed = Target.parse(target)
    return predict(onnx_path, check_target(target, profiles=profiles), parsed.precision, parsed.runtime)


def predict(
    onnx_path: str | Path, profile: DeviceProfile, precision: PrecisionName, runtime: RuntimeName | None = None
) -> Prediction:
    """Predicted latency of one call for an ONNX file on ``profile``; ``runtime`` defaults to the profile's first.

    ``int8`` on a graph without quantize/dequantize pairs assumes that all its convolutions and constant matrix
    products become int8. On other precisions the graph's own pairs are ignored.

    Raises:
        RequestError: the device does not run the precision, the ONNX file cannot be read, or a calibration is damaged.
    """
    chosen: RuntimeName = runtime if runtime is not None else next(iter(profile.runtimes))
    if precision not in profile.runtimes.get(chosen, []):
        raise RequestError(f"device '{profile.name}' does not run {precision} on {chosen}")
    return predict_graph(graph_cost(onnx_path), profile, precision, chosen)


def predict_graph(
    graph: GraphCost, profile: DeviceProfile, precision: PrecisionName, runtime: RuntimeName
) -> Prediction:
    """As :func:`predict`, for a graph that was read already and a precision that the device runs."""
    known = efficiencies_for(profile, runtime)
    parts = _parts_ms(work_of(graph, profile, precision), known.values())
    mid = sum(parts.values())
    outside = _outside(graph, profile, precision, known)
    factor = _spread(known, outside)
    return Prediction(
        device=profile.name,
        runtime=runtime,
        precision=precision,
        low_ms=mid / factor,
        mid_ms=mid,
        high_ms=mid * factor,
        memory_mb=_memory_mb(graph, profile, precision, known),
        basis=_basis(known, factor, outside, profile),
        outside=list(outside.values()),
        macs=graph.macs,
        kernels=len(graph.kernels),
        share={name: round(ms / mid, 4) for name, ms in parts.items() if ms},
    )


def predict_kernels(kernels: Iterable[Kernel], target: Target) -> list[float]:
    """Predicted milliseconds of kernels, each with the cost of starting it, without that of a call.

    Raises:
        RequestError: an impossible target.
    """
    profile = check_target(target.name)
    figures = efficiencies_for(profile, target.runtime).values()
    works = [work_of(GraphCost([k], False, {}, 0, 0), profile, target.precision) for k in kernels]
    return [float(kernel_ms(work, figures).sum() + start_ms(work, figures)[0]) for work in works]


def _parts_ms(work: Work, figures: Figures) -> dict[str, float]:
    times = kernel_ms(work, figures)
    parts = {str(kind): float(times[work.kinds == kind].sum()) for kind in np.unique(work.kinds)}
    return parts | {"start": float(start_ms(work, figures)[0]), "call": float(call_ms(work, figures)[0])}


def _outside(graph: GraphCost, profile: DeviceProfile, precision: PrecisionName, known: Efficiencies) -> dict[str, str]:
    """What the evidence does not cover: kind of extrapolation -> in words."""
    found: dict[str, str] = {}
    here = [e for e in known.evidence if e.device == profile.name and e.precision == precision]
    if not here:
        found["device"] = f"no measured {precision} rows of {profile.name}"
    kind, gmacs = architecture_of(graph), graph.macs / 1e9
    alike = [e for e in known.evidence if e.architecture == kind and e.precision == precision]
    if not alike:
        found["architecture"] = f"no measured {precision} rows of {kind} networks"
    elif not any(e.gmacs[0] / SIZE_RANGE <= gmacs <= e.gmacs[1] * SIZE_RANGE for e in alike):
        found["architecture"] = f"{gmacs:.3g} GMACs, far from the measured {kind} networks"
    return found


def _spread(known: Efficiencies, outside: dict[str, str]) -> float:
    """Factor of the interval; what lies outside the evidence in two ways adds up as independent errors."""
    if not outside:
        return known.spread.known.value
    factors = {"device": known.spread.new_device.value, "architecture": known.spread.new_architecture.value}
    return math.exp(math.hypot(*(math.log(factors[kind]) for kind in outside)))


def _basis(known: Efficiencies, factor: float, outside: dict[str, str], profile: DeviceProfile) -> str:
    rows = sum(e.rows for e in known.evidence)
    evidence = (
        f"calibration on {known.calibrated_on}" if known.calibrated_on else f"{rows} public rows" if rows else "priors"
    )
    width = f"x/÷ {factor:.2f}" + (f", wider: {' and '.join(outside.values())}" if outside else "")
    power = f"power mode {profile.default_power_mode}" if profile.default_power_mode else "no power mode stated"
    return f"predicted, {METHOD}, {evidence}; {width}; {power}"


def _memory_mb(graph: GraphCost, profile: DeviceProfile, precision: PrecisionName, known: Efficiencies) -> float:
    """Weights in the target's precision, activations in the one above int8 (an upper bound there), runtime, buffers."""
    wide = precision if not precision_of(precision).quantized else "f32" if profile.kind == "cpu" else "fp16"
    moved = graph.weights * BYTES[precision] + graph.peak_live * BYTES[wide] + graph.io * 4
    return round(moved / 1e6 + known.runtime_mb.value, 1)
