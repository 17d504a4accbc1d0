"""Predicted latency of an ONNX file on a device profile: always an interval, always called predicted.

Per fused kernel the time is the larger of compute (operations over the share of the peak that the class of operation
reaches) and memory traffic (bytes over the reachable bandwidth), plus the cost of starting a kernel; the kernels add
up. The shares come with the profile's prior and say where they are from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.errors import RequestError
from rsedge.devices.onnx_graph import GraphCost, Kernel, count_macs, graph_cost
from rsedge.devices.profile import DeviceProfile, OpClass, Prior, check_target
from rsedge.runtimes.manifest import Precision, Runtime, Target

__all__ = ["Prediction", "count_macs", "predict", "predict_target"]

BYTES: dict[str, int] = {"f32": 4, "bf16": 2, "fp16": 2, "int8": 1}
METHOD = "roofline v1"


class Prediction(BaseModel):
    """A predicted latency (ms) with an interval whose width is judged from errors on other networks and devices.

    How often a device falls between ``low_ms`` and ``high_ms`` has not been checked, so no coverage is claimed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provenance: Literal["predicted"] = "predicted"
    device: str
    runtime: str
    precision: str
    low_ms: float
    mid_ms: float
    high_ms: float
    basis: str = Field(description="method, evidence and the reason for the width of the interval")
    macs: int
    kernels: int
    share: dict[str, float] = Field(description="share of the time per class of operation and for starting kernels")

    def __str__(self) -> str:
        return f"predicted {self.low_ms:.2f}-{self.high_ms:.2f} ms"


def predict_target(onnx_path: str | Path, target: str) -> Prediction:
    """Predicted latency of an ONNX file on a target such as ``tensorrt-jetson-orin-nano-8gb-fp16``.

    Raises:
        RequestError: an impossible target, or an ONNX file that cannot be read.
    """
    parsed = Target.parse(target)
    return predict(onnx_path, check_target(target), parsed.precision, parsed.runtime)


def predict(
    onnx_path: str | Path, profile: DeviceProfile, precision: Precision, runtime: Runtime | None = None
) -> Prediction:
    """Predicted latency of an ONNX file on ``profile``; ``runtime`` defaults to the profile's first.

    ``int8`` on a graph without quantize/dequantize pairs assumes that all its convolutions and constant matrix
    products become int8. On other precisions the graph's own pairs are ignored.

    Raises:
        RequestError: the device does not run the precision, or the ONNX file cannot be read.
    """
    chosen: Runtime = runtime if runtime is not None else next(iter(profile.runtimes))
    if precision not in profile.runtimes.get(chosen, []):
        raise RequestError(f"device '{profile.name}' does not run {precision} on {chosen}")
    graph, prior = graph_cost(onnx_path), profile.prior(chosen)
    parts = _times_us(graph, profile, prior, precision)
    mid = sum(parts.values()) / 1e3 + prior.fixed_ms.value
    spread = prior.spread[precision].value
    width = f"x/÷ {spread:g}, coverage not checked ({prior.spread[precision].source})"
    return Prediction(
        device=profile.name,
        runtime=chosen,
        precision=precision,
        low_ms=mid / spread,
        mid_ms=mid,
        high_ms=mid * spread,
        basis=f"predicted, {METHOD}; {width}; {_power_note(profile)}",
        macs=graph.macs,
        kernels=len(graph.kernels),
        share={name: round(us / 1e3 / mid, 4) for name, us in parts.items() if us},
    )


def _power_note(profile: DeviceProfile) -> str:
    return f"power mode {profile.default_power_mode}" if profile.default_power_mode else "no power mode stated"


def _times_us(graph: GraphCost, profile: DeviceProfile, prior: Prior, precision: Precision) -> dict[str, float]:
    parts: dict[str, float] = {}
    for kernel in graph.kernels:
        own = _kernel_precision(kernel, graph, precision, profile)
        parts[kernel.kind] = parts.get(kernel.kind, 0.0) + _kernel_us(kernel, own, precision, profile, prior)
    parts["start"] = len(graph.kernels) * prior.kernel_us[precision].value
    return parts


def _kernel_precision(kernel: Kernel, graph: GraphCost, precision: Precision, profile: DeviceProfile) -> Precision:
    """int8 where the target is int8 and the kernel can be; the rest of an int8 graph runs in the next precision up."""
    if precision != "int8":
        return precision
    if kernel.quantized or (not graph.explicit_int8 and kernel.kind in ("conv", "depthwise", "matmul")):
        return "int8"
    return "fp16" if "fp16" in profile.peaks_tops and profile.kind != "cpu" else "f32"


def _kernel_us(kernel: Kernel, own: Precision, asked: Precision, profile: DeviceProfile, prior: Prior) -> float:
    moved = (kernel.read + kernel.weights + kernel.written) * BYTES[own]
    memory = moved / (prior.bandwidth_efficiency.value * profile.bandwidth_gb_s.value * 1e9)
    if kernel.kind == "memory":
        return memory * 1e6
    reached = _efficiency(prior, kernel.kind, own, asked) * profile.peak_tops(own) * 1e12
    return max(2 * kernel.macs / reached, memory) * 1e6


def _efficiency(prior: Prior, kind: OpClass, own: Precision, asked: Precision) -> float:
    table = prior.efficiency[kind]
    return (table.get(own) or table[asked]).value
