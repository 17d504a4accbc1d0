"""What one tile costs on a device: latency, power and memory, each with where it comes from.

Looked for in this order: what the mission file states, a bench file, what the bundle recorded on the same device, and
last a prediction from the graph (ONNX, or OpenVINO IR). Which one it was is part of the result; predicted values carry an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import read_json
from rsedge.data.record import Record
from rsedge.devices.measure.protocol import LatencyMs
from rsedge.devices.mission.description import ComputeSection
from rsedge.devices.predict.energy import idle_power_w, predict_energy
from rsedge.devices.predict.latency import predict
from rsedge.devices.predict.onnx_graph import GRAPHS, graph_cost
from rsedge.devices.profiles.power import in_power_mode
from rsedge.devices.profiles.profile import DeviceProfile
from rsedge.runtimes.bundle.manifest import Manifest, Target
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName

Provenance = Literal["measured", "given", "predicted", "profile"]


class Figure(Record):
    """A value with its interval, unit, provenance and source; low, mid and high are equal unless it is predicted."""

    low: float
    mid: float
    high: float
    unit: str
    provenance: Provenance
    source: str = Field(min_length=3)

    @classmethod
    def exact(cls, value: float, unit: str, provenance: Provenance, source: str) -> Figure:
        """A value without an interval."""
        return cls(low=value, mid=value, high=value, unit=unit, provenance=provenance, source=source)

    def __str__(self) -> str:
        if self.provenance == "predicted":
            return f"predicted {self.low:.3g} to {self.high:.3g} {self.unit}"
        return f"{self.mid:.3g} {self.unit} ({self.provenance})"


class Recorded(BaseModel):
    """The part of a measuring record that a budget needs; other fields are left alone."""

    model_config = ConfigDict(extra="ignore")

    provenance: Literal["measured"]
    device: str
    latency_ms: LatencyMs
    peak_rss_bytes: int | None = None


@dataclass(frozen=True)
class Workload:
    """What a budget needs to know of the artefact: tile (pixels), channels, bytes per sample, target and records."""

    label: str
    runtime: RuntimeName
    precision: PrecisionName
    device: str
    tile: int
    channels: int
    sample_bytes: int
    gsd_m: float | None
    gsd_range_m: tuple[float, float] | None
    graph: Path | None
    recorded: Recorded | None
    bench: Path | None = None


@dataclass(frozen=True)
class TileCost:
    """Per tile on the device: latency (ms), energy above idle (mJ), and the board's power levels (W)."""

    device: str
    power_mode: str | None
    latency: Figure
    idle_w: Figure
    dynamic: Figure
    memory: Figure | None
    usable_memory_mb: float
    cap_w: float | None

    @property
    def predicted(self) -> bool:
        """True where latency or energy is predicted, which makes the whole budget predicted."""
        return "predicted" in (self.latency.provenance, self.dynamic.provenance)


def workload(
    spec: InputSpec, target: Target, graph: Path | None, record: Recorded | None, bench: Path | None = None
) -> Workload:
    """The workload of a model with that contract and target; ``record`` was measured on the target's own device."""
    gsds = [b.gsd_m for b in spec.bands if b.gsd_m is not None]
    return Workload(
        label=target.name,
        runtime=target.runtime,
        precision=target.precision,
        device=target.device,
        tile=spec.tile,
        channels=spec.channels,
        sample_bytes=np.dtype(spec.dtype).itemsize,
        gsd_m=min(gsds) if gsds else None,
        gsd_range_m=spec.gsd_range_m,
        graph=graph,
        recorded=read_bench(bench) if bench else record,
        bench=bench,
    )


def bundle_workload(manifest: Manifest, folder: Path, onnx: Path | None = None, bench: Path | None = None) -> Workload:
    """The workload of a bundle; ``onnx`` is its graph where the bundle holds none that can be read; ``bench`` a
    `rsedge bench --json`.

    Raises:
        RequestError: the bench file is not one.
    """
    own = folder / manifest.model_file
    graph = onnx or (own if own.suffix in GRAPHS else None)
    return workload(manifest.input_spec, manifest.target, graph, recorded(manifest.latency), bench)


def read_bench(path: Path) -> Recorded:
    """A measurement from the JSON that `rsedge bench --json` printed.

    Raises:
        RequestError: missing, not JSON, or no measurement.
    """
    try:
        return Recorded.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "record"
        raise RequestError(f"{path}: not what `rsedge bench BUNDLE --json` prints: {field}: {first['msg']}") from error


def recorded(note: dict[str, Any] | None) -> Recorded | None:
    """The measurement in a bundle's latency record; None where it holds a prediction or nothing."""
    if note is None or note.get("provenance") != "measured":
        return None
    return Recorded.model_validate(note)


def tile_cost(work: Workload, profile: DeviceProfile, compute: ComputeSection) -> TileCost:
    """Cost of one tile on ``profile``.

    Raises:
        RequestError: unknown power mode, or nothing that latency or power could come from; says what to give.
    """
    name, mode = profile.power_mode(compute.power_mode)
    latency, idle = _latency(work, profile, compute), _idle(profile, compute)
    return TileCost(
        device=profile.name,
        power_mode=name,
        latency=latency,
        idle_w=idle,
        dynamic=_given_dynamic(compute, latency, idle) or _predicted_dynamic(work, profile, compute, latency, idle),
        memory=_memory(work, profile, compute),
        usable_memory_mb=(profile.usable_memory_gb or profile.memory_gb).value * 1e3,
        cap_w=mode.cap_w if mode else None,
    )


def _latency(work: Workload, profile: DeviceProfile, compute: ComputeSection) -> Figure:
    if compute.latency_ms is not None:
        return Figure.exact(compute.latency_ms, "ms", "given", "mission: compute.latency_ms")
    same_mode = profile.power_mode(compute.power_mode) == profile.power_mode()
    if work.recorded is not None and (work.bench or (profile.name == work.device and same_mode)):
        stats, kind = work.recorded.latency_ms, "p50" if work.recorded.latency_ms.mean is None else "mean"
        value = stats.p50 if stats.mean is None else stats.mean
        source = f"{work.bench or 'the record in the bundle'}: {kind} on {work.recorded.device}"
        return Figure.exact(value, "ms", "measured", source)
    if work.graph is None:
        raise RequestError(
            f"latency of {work.label} on '{profile.name}': the bundle was not measured there and holds neither ONNX nor IR to "
            "predict from. Give --onnx FILE (a run keeps stages/export/student-f32.onnx), --bench FILE (what `rsedge "
            "bench BUNDLE --json` printed on the device), or --set compute.latency_ms=VALUE"
        )
    found = predict(work.graph, in_power_mode(profile, compute.power_mode), work.precision, work.runtime)
    return Figure(
        low=found.low_ms, mid=found.mid_ms, high=found.high_ms, unit="ms", provenance="predicted", source=found.basis
    )


def _idle(profile: DeviceProfile, compute: ComputeSection) -> Figure:
    if compute.idle_w is not None:
        return Figure.exact(compute.idle_w, "W", "given", "mission: compute.idle_w")
    value = idle_power_w(profile)
    return Figure.exact(value, "W", "profile", profile.idle_w.source if profile.idle_w else "profile")


def _given_dynamic(compute: ComputeSection, latency: Figure, idle: Figure) -> Figure | None:
    """Energy above idle per tile (mJ = W x ms) from the stated watts; None where they are not stated."""
    if compute.active_w is None:
        return None
    if compute.active_w < idle.mid:
        raise RequestError(f"compute.active_w ({compute.active_w:g} W) is less than idle power ({idle.mid:g} W)")
    above = compute.active_w - idle.mid
    kind: Provenance = "predicted" if latency.provenance == "predicted" else "given"
    source = f"mission: compute.active_w {compute.active_w:g} W less idle, times latency"
    low, mid, high = (above * t for t in (latency.low, latency.mid, latency.high))
    return Figure(low=low, mid=mid, high=high, unit="mJ", provenance=kind, source=source)


def _predicted_dynamic(
    work: Workload, profile: DeviceProfile, compute: ComputeSection, latency: Figure, idle: Figure
) -> Figure:
    if work.graph is None:
        raise RequestError(
            f"power of {work.label} on '{profile.name}': no measured watts, and the bundle holds neither ONNX nor IR to predict "
            "from. Give --set compute.active_w=WATTS (and compute.idle_w), or --onnx FILE (a run keeps "
            "stages/export/student-f32.onnx)"
        )
    mode = profile.power_mode(compute.power_mode)[1]
    times = (latency.low, latency.mid, latency.high)
    graph = graph_cost(work.graph)
    found = predict_energy(graph, profile, work.precision, times, compute.power_mode, compute.idle_w)
    low, mid, high = found.dynamic_mj
    cap_w, source = (mode.cap_w if mode else None), found.basis
    if latency.provenance != "predicted" and cap_w is not None:
        # The device kept to its cap while it was measured, so no inference took more than this.
        most = (cap_w - idle.mid) * latency.mid
        low, mid, high = (min(value, most) for value in (low, mid, high))
        source += f"; at most what {cap_w:g} W allow in the {latency.provenance} time"
    return Figure(low=low, mid=mid, high=high, unit="mJ", provenance="predicted", source=source)


def _memory(work: Workload, profile: DeviceProfile, compute: ComputeSection) -> Figure | None:
    """Given, measured on this device, or predicted; None where none of them can be."""
    if compute.memory_mb is not None:
        return Figure.exact(compute.memory_mb, "MB", "given", "mission: compute.memory_mb")
    known = work.recorded
    if known is not None and known.peak_rss_bytes is not None and (work.bench or profile.name == work.device):
        return Figure.exact(known.peak_rss_bytes / 1e6, "MB", "measured", "peak memory of the measured process")
    if work.graph is None:
        return None
    found = predict(work.graph, profile, work.precision, work.runtime)
    return Figure.exact(found.memory_mb, "MB", "predicted", f"{found.basis.partition(';')[0]}: peak memory")
