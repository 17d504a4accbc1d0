"""One row a target: what a model takes there, where the figure comes from, and how sure it is.

Looked for in this order: timed on a host that stands for the target's device, or on this machine, where it is that; what a bundle
recorded of its own target; else a prediction from the ONNX graph, with its interval and what it rests on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.data.record import Record
from rsedge.devices.measure.protocol import Measurement, measure
from rsedge.devices.measure.subject import opened_subject
from rsedge.devices.mission.load import recorded
from rsedge.devices.predict.energy import EnergyPrediction, predict_energy
from rsedge.devices.predict.latency import predict_graph
from rsedge.devices.predict.onnx_graph import GRAPHS, GraphCost, foreign, graph_cost
from rsedge.devices.profiles.profile import DeviceProfile, check_target
from rsedge.devices.table import bare, there
from rsedge.devices.table.there import Host
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.graph_types import GraphTypes
from rsedge.runtimes.inspecting import graph_types

Provenance = Literal["measured", "recorded", "predicted"]


class EnergyFigure(Record):
    """Of one inference (mJ), with the word for where it comes from."""

    provenance: Literal["measured", "predicted"]
    low: float
    mid: float
    high: float
    basis: str


class LatencyRow(Record):
    """One model on one target. ``ms`` is the median where it was measured, the middle where it is predicted; ``low_ms`` and
    ``high_ms`` hold the middle half of the runs (p25 to p75), or the interval of the prediction."""

    target: str
    device: str
    provenance: Provenance
    ms: float
    low_ms: float
    high_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    throughput_per_s: float | None = None
    memory_mb: float | None = None
    energy: EnergyFigure | None = None
    basis: str
    outside: list[str] = Field(default_factory=list, description="what the evidence of a prediction does not cover")
    share: dict[str, float] = Field(default_factory=dict, description="of a predicted time, by kind of operation")
    noisy: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Between which the figure lies (ms): the interval of a prediction, else the median alone."""
        return (self.low_ms, self.high_ms) if self.provenance == "predicted" else (self.ms, self.ms)

    @property
    def words(self) -> str:
        """The figure as it is told: a prediction never without the word."""
        if self.provenance == "predicted":
            return f"predicted {self.low_ms:.3g} to {self.high_ms:.3g} ms"
        return f"{self.ms:.3g} ms"


class LeftOut(Record):
    """A target without a row, and why."""

    target: str
    why: str


class FailedHost(Record):
    """A host that gave no figure of a target, and why. The target's row, where it has one, is what there would be without it."""

    target: str
    host: str
    why: str


class LatencyTable(Record):
    """A model on many targets, the fastest first."""

    model: str
    kind: Literal["ONNX", "OpenVINO IR", "bundle"]
    macs: int | None = Field(description="multiply-accumulates of one inference; None without a graph")
    weights: int | None
    threads: int
    baseline: str | None
    rows: list[LatencyRow]
    left_out: list[LeftOut]
    failed_hosts: list[FailedHost] = Field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every target has a figure, and every host measured what was asked of it."""
        return not self.left_out and not self.failed_hosts

    def over_baseline(self, row: LatencyRow) -> str | None:
        """How many times as long as the baseline a row takes; an interval with the word where one of them is predicted. None
        without a baseline."""
        base = next((r for r in self.rows if r.target == self.baseline), None)
        if base is None or row is base:
            return None if base is None else "1"
        if "predicted" not in (row.provenance, base.provenance):
            return f"{row.ms / base.ms:.2f}"
        return f"predicted {row.ends[0] / base.ends[1]:.2g} to {row.ends[1] / base.ends[0]:.2g}"


@dataclass(frozen=True)
class Model:
    """What is asked about: a file or a bundle, and its graph, or why it has none that can be read."""

    name: str
    kind: Literal["ONNX", "OpenVINO IR", "bundle"]
    path: Path
    graph: GraphCost | None
    no_graph: str = ""
    bundle: Bundle | None = None
    types: GraphTypes | None = None

    def computes_in(self, precision: str) -> bool:
        """Whether what the file holds is of a target's precision; a file that nothing here can read is taken for floats."""
        if self.bundle is not None:
            return self.bundle.target.precision == precision
        return (self.types or GraphTypes({}, False)).fits(precision)


@contextlib.contextmanager
def open_model(path: Path, key: Path | None = None, name: str | None = None) -> Iterator[Model]:
    """An ONNX file, an OpenVINO IR or a bundle.

    Raises:
        RequestError: none of these, a file that cannot be read, or a key for one that is no bundle.
        IntegrityError: a bundle that was altered.
    """
    shown = name or path.name
    if key is not None and path.suffix in bare.SUFFIXES:
        raise RequestError(f"{name or path}: --key is for bundles; leave it out")
    if path.suffix == ".onnx":
        yield Model(shown, "ONNX", path, graph_cost(foreign(path)), types=graph_types(path))
    elif path.suffix == ".xml":
        if not path.is_file():
            raise RequestError(f"{path}: no such file")
        yield Model(shown, "OpenVINO IR", path, *_graph(path), types=graph_types(path))
    else:
        with Bundle.open(path, key) as bundle:
            own = bundle.folder / bundle.manifest.model_file
            yield Model(shown, "bundle", path, *_graph(own), bundle)


def _graph(path: Path) -> tuple[GraphCost | None, str]:
    """What a model's file is predicted from; or why not, which hinders no measurement."""
    if path.suffix not in GRAPHS:
        return None, f"no graph can be read from {path.name}"
    try:
        return graph_cost(foreign(path)), ""
    except RequestError as error:
        if path.suffix == ".onnx":
            raise
        return None, str(error)


def latency_table(
    model: Model,
    targets: Sequence[str],
    threads: int,
    seconds: float = 3.0,
    baseline: str | None = None,
    profiles: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    hosts: Sequence[Host] = (),
) -> LatencyTable:
    """The rows of a model; a target for which none can be had is listed with the reason.

    Args:
        targets: ``<runtime>-<device>-<precision>``.
        threads, seconds: of what is timed here.
        baseline: one of ``targets``, which the others are compared with.
        profiles: files of the user's own devices.
        hosts: where targets of some devices are measured, one a device. Where one fails, that is noted, and its targets are
            reported as they would be without it.

    Raises:
        RequestError: a target that cannot be, two hosts for one device, or a baseline that is none of the targets.
        RequestError, MissingCapability: no target has a figure; the first reason.
    """
    there.check_hosts(hosts)
    wanted = list(dict.fromkeys(targets))
    if not wanted:
        raise RequestError(
            "--on: names no target; give some, e.g. --on openvino-cpu-f32,tensorrt-jetson-orin-nano-8gb-fp16"
        )
    if baseline is not None and baseline not in wanted:
        raise RequestError(f"--baseline {baseline}: none of the targets ({', '.join(wanted)}); add it to --on")
    profiled = [(Target.parse(name), check_target(name, profiles=profiles)) for name in wanted]
    rows, left_out, failed, errors = list[LatencyRow](), list[LeftOut](), list[FailedHost](), list[RsedgeError]()
    for number, (target, profile) in enumerate(profiled):
        progress(number, len(profiled))
        host = next((h for h in hosts if h.device == target.device and not _by_another(model, target, wanted)), None)
        found = None if host is None else _tried(_there, model, target, host, seconds)
        if host is not None and isinstance(found, RsedgeError):
            failed.append(FailedHost(target=target.name, host=str(host.address), why=str(found)))
            errors.append(found)
        if not isinstance(found, LatencyRow):
            found = _tried(_row, model, target, profile, threads, seconds)
        if isinstance(found, LatencyRow):
            rows.append(found)
        else:
            left_out.append(LeftOut(target=target.name, why=str(found)))
            errors.append(found)
    if not rows:
        raise errors[0]
    progress(len(profiled), len(profiled))
    graph = model.graph
    return LatencyTable(
        model=model.name, kind=model.kind, macs=None if graph is None else graph.macs,
        weights=None if graph is None else graph.weights, threads=threads, baseline=baseline,
        rows=sorted(rows, key=lambda row: row.ms), left_out=left_out, failed_hosts=failed,
    )  # fmt: skip


def _by_another(model: Model, target: Target, wanted: Sequence[str]) -> bool:
    """Whether the target's device is asked for another target, the bundle's own: of others it could not tell."""
    own = None if model.bundle is None else model.bundle.target
    return own is not None and own.name in wanted and own.device == target.device and own.name != target.name


def _tried(work: Callable[..., LatencyRow], *given: Any) -> LatencyRow | RsedgeError:
    """A row, or why there is none."""
    try:
        return work(*given)
    except (RequestError, MissingCapability) as error:
        return error


def _row(model: Model, target: Target, profile: DeviceProfile, threads: int, seconds: float) -> LatencyRow:
    if profile.measurable and (found := _timed(model, target, threads, seconds)) is not None:
        return _of_measurement(target, profile.title, found)
    if (known := _of_record(model, target)) is not None:
        return known
    return _predicted(model, target, profile)


def _there(model: Model, target: Target, host: Host, seconds: float) -> LatencyRow:
    found, remote = there.measured(model.bundle, target, host, seconds)
    device = f"{remote['device']['model']} at {host.address}"
    golden = "" if remote["golden"]["passed"] else ", where its golden vector FAILS"
    row = _of_measurement(target, device, found)
    return row.model_copy(update={"basis": f"{row.basis.replace('timed here', 'timed there')}{golden}"})


def _timed(model: Model, target: Target, threads: int, seconds: float) -> Measurement | None:
    """What this machine says; None where the file does not compute in the target's precision, or is not for its runtime."""
    if not model.computes_in(target.precision):
        return None
    if model.bundle is None:
        if model.path.suffix not in target.backend.suffixes or not target.backend.parts:
            return None
        return bare.measured(model.path, target, threads, seconds)
    if model.bundle.target.name != target.name:
        return None
    with opened_subject(model.bundle, threads) as subject:
        return measure(subject.run, subject.inputs, seconds=seconds, threads=threads, labels=subject.labels)


def _of_measurement(target: Target, device: str, found: Measurement) -> LatencyRow:
    latency, energy = found.latency_ms, found.energy
    quarters = _quarters(found.samples_ms, latency.p50)
    mj = None if energy is None else 1e3 * energy.joules_per_item
    return LatencyRow(
        target=target.name, device=device, provenance="measured", ms=latency.p50, low_ms=quarters[0],
        high_ms=quarters[1], p90_ms=latency.p90, p99_ms=latency.p99, throughput_per_s=found.throughput_per_s,
        energy=None if energy is None or mj is None
        else EnergyFigure(provenance="measured", low=mj, mid=mj, high=mj, basis=energy.covers),
        basis=f"timed here: {found.n} runs, {found.runtime} {found.runtime_version}, {found.threads} threads, "
        f"in {found.precision}",
        noisy=found.noisy,
    )  # fmt: skip


def _quarters(samples: Sequence[float], median: float) -> tuple[float, float]:
    if len(samples) < 4:
        return median, median
    ordered = sorted(samples)
    return ordered[len(ordered) // 4], ordered[-(len(ordered) // 4) - 1]


def _of_record(model: Model, target: Target) -> LatencyRow | None:
    if model.bundle is None or model.bundle.target.name != target.name:
        return None
    known = recorded(model.bundle.manifest.latency)
    if known is None:
        return None
    latency = known.latency_ms
    memory = None if known.peak_rss_bytes is None else known.peak_rss_bytes / 1e6
    return LatencyRow(
        target=target.name, device=known.device, provenance="recorded", ms=latency.p50, low_ms=latency.p50,
        high_ms=latency.p90, p90_ms=latency.p90, p99_ms=latency.p99, memory_mb=memory,
        basis="the bundle's own record, measured where it was made",
    )  # fmt: skip


def _predicted(model: Model, target: Target, profile: DeviceProfile) -> LatencyRow:
    if model.graph is None:
        raise RequestError(
            f"{model.path}: nothing to predict from: {model.no_graph}; give the ONNX file it was made from"
        )
    found = predict_graph(model.graph, profile, target.precision, target.runtime)
    return LatencyRow(
        target=target.name, device=profile.title, provenance="predicted", ms=found.mid_ms, low_ms=found.low_ms,
        high_ms=found.high_ms, memory_mb=found.memory_mb, energy=_energy(model.graph, profile, target, found),
        basis=found.basis, outside=found.outside, share=found.share,
    )  # fmt: skip


def _energy(graph: GraphCost, profile: DeviceProfile, target: Target, found: Any) -> EnergyFigure | None:
    """Predicted energy, where the profile states what that needs."""
    if profile.idle_w is None or not any(mode.cap_w for mode in profile.power_modes.values()):
        return None
    times = (found.low_ms, found.mid_ms, found.high_ms)
    energy: EnergyPrediction = predict_energy(graph, profile, target.precision, times)
    return EnergyFigure(
        provenance="predicted", low=energy.low_mj, mid=energy.mid_mj, high=energy.high_mj, basis=energy.basis
    )
