"""Figures of one report as texts: a quantity has one text, wherever it stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from rsedge.data.metrics.verdict import Gate, gate_decimals, gate_figure, metric_figure
from rsedge.data.numbers import DASH
from rsedge.devices.measure.load import TOO_BUSY
from rsedge.devices.measure.protocol import LatencyMs
from rsedge.devices.onboard.stats import NOISY_RATIO
from rsedge.reports.schema import BaselineRecord, Report, TargetRecord

Artefact = TargetRecord | BaselineRecord
QUANTILES = ("p50", "p90", "p99")


@dataclass(frozen=True)
class Texts:
    """How a report writes its metrics: with the decimals that the finest limit on each of them needs."""

    decimals: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, report: Report) -> Texts:
        found: dict[str, int] = {}
        for gate in (g for t in report.targets for g in t.gates if g.constraint != "max_relative_drop"):
            found[gate.metric] = max(found.get(gate.metric, 0), gate_decimals(gate))
        return cls(found)

    def metric(self, name: str, value: float | None) -> str:
        """A metric in its unit."""
        return metric_figure(name, value, self.decimals.get(name))

    def difference(self, name: str, value: float | None) -> str:
        """How far a metric lies over another, with its sign."""
        if value is None:
            return DASH
        size = self.metric(name, abs(value))
        return f"{'−' if value < 0 and any(c in '123456789' for c in size) else '+'}{size}"

    def gate(self, gate: Gate, value: float | None) -> str:
        """A value of a gate."""
        return gate_figure(gate, value, self.decimals_at(gate))

    def decimals_at(self, gate: Gate) -> int | None:
        """Of a gate's figures; None of a share of the teacher's figure, which no other place shows."""
        return None if gate.constraint == "max_relative_drop" else self.decimals.get(gate.metric)


def metric_of(row: Artefact, name: str) -> float | None:
    """An artefact's figure of a metric, None where it has none."""
    return row.agreement if name == "agreement" else number(row.metrics.get(name))


def interval_of(row: Artefact, name: str) -> tuple[float, float] | None:
    """The 95 % interval of an artefact's metric."""
    found = row.evidence.get(name) if isinstance(row, TargetRecord) else None
    if found is not None:
        return found.own.interval
    beside = row.metrics.get(f"{name}_interval")
    return (float(beside[0]), float(beside[1])) if beside else None


def speedup(report: Report, row: Artefact) -> float | None:
    """How many times faster than the reference, as measured in turns; None across devices or when predicted.

    Reports of before the ratio was kept have it at the gate that asked for it.
    """
    base = reference(report)
    if base is None or row.latency_ms is None or row.device != base[1]:
        return None
    if row.speedup is not None:
        return row.speedup.value
    gates = row.gates if isinstance(row, TargetRecord) else []
    return next((g.value for g in gates if g.constraint == "min_speedup" and g.over == base[0]), None)


def reference(report: Report) -> tuple[str, str, LatencyMs] | None:
    """(name, device, latency) of what speed-ups are against: the teacher on OpenVINO f32, or as it was given."""
    for row in report.baselines:
        if row.precision == "f32" and row.latency_ms is not None:
            return row.name, row.device, row.latency_ms
    if report.teacher.latency_ms is not None:
        return "teacher", "cpu", report.teacher.latency_ms
    return None


def caution(row: Artefact) -> str:
    """What is to be known of an artefact's measurement: that its runs spread far, or that other work went on; else empty."""
    m = row.measurement
    if m is None:
        return ""
    busy = m.load is not None and ((m.load.others or 0) > TOO_BUSY or (m.load.steal or 0) > TOO_BUSY)
    spread = f"p90 is more than {NOISY_RATIO} times p50" if m.noisy else ""
    if not spread and not busy:
        return ""
    load = m.load.words() if m.load is not None else ""
    parts = [spread, load, f"load average {m.load_average:.1f} at the start"]
    return f"{'noisy' if m.noisy else 'busy machine'}: " + ", ".join(p for p in parts if p)


def number(value: object) -> float | None:
    """A figure of a record's metrics; None of what is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
