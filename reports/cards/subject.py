"""What is known of one bundle, from its manifest and, where there is one, the report of its run; and what is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import Gate, metric_figure, verdict_text
from rsedge.data.record import validated
from rsedge.devices.measure.protocol import Energy, Measurement
from rsedge.reports import figures as f
from rsedge.reports.schema import Interval, Report, SceneRecord, TargetRecord
from rsedge.runtimes.bundle.manifest import Manifest

UNKNOWN = "not known"
OF_THE_DEVICE = ("latency", "memory", "size")
"""Metrics of the table that cards say elsewhere, with what they were measured on."""


@dataclass(frozen=True)
class Array:
    """An array that goes in or comes out, batch axis included."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Archive:
    """The ``.zip`` of a bundle: a reference to it from where cards lie, its size (bytes) and hash."""

    href: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Figure:
    """One metric on the test set: its value in the table's unit, its 95 % interval where one is known and what that rests on."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    rests: str | None = None

    @property
    def title(self) -> str:
        return METRICS[self.name].title

    @property
    def text(self) -> str:
        if self.interval is None:
            return f"{metric_figure(self.name, self.value)} (interval {UNKNOWN})"
        low, high = (metric_figure(self.name, v) for v in self.interval)
        return f"{metric_figure(self.name, self.value)} (95 % interval {low} to {high}, {self.rests})"


@dataclass(frozen=True)
class DataSource:
    """Something the run read: its roles, hash, licence, when it was taken and where (west, south, east, north, degrees), as far as
    they are recorded."""

    name: str
    roles: tuple[str, ...]
    licence: str | None = None
    sha256: str | None = None
    taken: str | None = None
    bounds: tuple[float, float, float, float] | None = None

    @property
    def place(self) -> str:
        """In words."""
        return UNKNOWN if self.bounds is None else ", ".join(f"{degrees:.4f}" for degrees in self.bounds)


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        manifest_sha256: of what the manifest says.
        signature: who vouches for the bundle, in words; key: the fingerprint of that key.
        inputs, outputs: arrays of the golden vector.
        places: a reference (RFC 3986) to each file of a bundle that is a folder, from where cards lie.
        archive: of a bundle that is a ``.zip``, whose files have no references of their own; None of a folder.
        writer: version of rsedge that writes the cards.
        report: of the run that made the bundle; None where the bundle is all there is.
        student: its architecture, as the run's recipe names it.
        licences: of data, by name.
    """

    manifest: Manifest
    manifest_sha256: str
    signature: str
    key: str | None
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    places: Mapping[str, str]
    writer: str
    archive: Archive | None = None
    report: Report | None = None
    student: str | None = None
    licences: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._agrees()

    def _agrees(self) -> None:
        verdict = self.manifest.verdict
        if self.target is not None and verdict is not None and list(verdict.gates) != self.target.gates:
            raise RequestError(
                f"{self.name}: the bundle's verdict is not the one in report.json, so they are of two runs; "
                "the same `rsedge run` again brings both in line"
            )

    @property
    def name(self) -> str:
        return f"{self.manifest.name} {self.manifest.target.name}"

    @property
    def target(self) -> TargetRecord | None:
        """Its row of the report.

        Raises:
            RequestError: the report has none.
        """
        if self.report is None:
            return None
        found = [t for t in self.report.targets if t.name == self.manifest.target.name]
        if not found:
            raise RequestError(f"{self.name}: report.json has no target of that name; run the recipe again")
        return found[0]

    @property
    def gates(self) -> tuple[Gate, ...]:
        return () if self.manifest.verdict is None else self.manifest.verdict.gates

    @property
    def verdict(self) -> str:
        """What became of its gates, in a line."""
        return verdict_text(self.manifest.verdict).removeprefix("verdict: ")

    @property
    def figures(self) -> list[Figure]:
        """Metrics of the bundle's own executable (or what stood in for it) on the test set, in the table's order."""
        values: Mapping[str, Any] = self.manifest.metrics
        if self.target is not None:
            values = self.target.metrics | {"agreement": self.target.agreement}
        names = [name for name in METRICS if name not in OF_THE_DEVICE and _is_number(values.get(name))]
        return [self._figure(name, float(values[name])) for name in names]

    def _figure(self, name: str, value: float) -> Figure:
        evidence = None if self.target is None else self.target.evidence.get(name)
        if evidence is None or evidence.own.interval is None or evidence.own.value != value:
            return Figure(name, value)
        return Figure(name, value, evidence.own.interval, f"{evidence.n} {evidence.unit}")

    @property
    def measured(self) -> Measurement | None:
        """How its latency was measured; None where it was not."""
        if self.target is not None:
            return self.target.measurement
        found = self.manifest.latency or {}
        if found.get("provenance") == "predicted" or not found:
            return None
        return validated(Measurement, found, f"{self.name}: latency")

    @property
    def predicted(self) -> Interval | None:
        """What its latency is predicted to be; None where it is measured, or nothing is known."""
        if self.target is not None:
            return self.target.interval
        found = dict(self.manifest.latency or {})
        if found.pop("provenance", None) != "predicted":
            return None
        return validated(
            Interval, {k: v for k, v in found.items() if k in Interval.model_fields}, f"{self.name}: latency"
        )

    @property
    def latency(self) -> str:
        """In words; never a bare number where it was predicted."""
        if (measured := self.measured) is not None:
            ms = measured.latency_ms
            noisy = ", noisy" if measured.noisy else ""
            p50, p90, p99 = (f.milliseconds(v) for v in (ms.p50, ms.p90, ms.p99))
            return f"measured on {self.device}: p50 {p50}, p90 {p90}, p99 {p99} over {measured.n:,} runs{noisy}"
        if (found := self.predicted) is not None:
            low, high = f.milliseconds(found.low_ms), f.milliseconds(found.high_ms)
            return f"predicted {low} to {high} on {self.device}; {found.basis}"
        return UNKNOWN

    @property
    def device(self) -> str:
        """The machine its figures are of; of a bundle alone only what its target says."""
        here = self.manifest.target.device == "cpu" and self.report is not None and self.report.environment
        return here.cpu if here else self.manifest.target.device

    @property
    def energy(self) -> Energy | None:
        """Of one inference, where a rail or counter was readable."""
        return None if self.measured is None else self.measured.energy

    @property
    def sources(self) -> list[DataSource]:
        """What the run read, in the order in which its roles name it; nothing of a bundle alone."""
        if self.report is None:
            return []
        roles: dict[str, list[str]] = {}
        for role, split in self.report.data.splits.items():
            for name in split.scenes:
                roles.setdefault(name, []).append(role)
        return [self._source(name, tuple(found), self.report.data.scenes.get(name)) for name, found in roles.items()]

    def _source(self, name: str, roles: tuple[str, ...], scene: SceneRecord | None) -> DataSource:
        licence = self.licences.get(name)
        return (
            DataSource(name, roles, licence)
            if scene is None
            else DataSource(name, roles, licence, scene.sha256, scene.taken, scene.bounds)
        )

    @property
    def limits(self) -> list[str]:
        """What was never measured, is undecided or is not recorded, in sentences."""
        return [*self._of_gates(), *self._of_device(), *self._of_accuracy(), *self._of_origin()]

    def _of_gates(self) -> Iterator[str]:
        if not self.gates:
            yield "No gate was judged: no limit on accuracy, latency or size was set for this bundle."
        for gate in self.gates:
            if gate.outcome != "passed":
                yield f"The gate '{gate.name}' is {gate.word}."
            elif gate.predicted:
                yield f"The gate '{gate.name}' passed on a predicted value: nobody has measured it on the device."

    def _of_device(self) -> Iterator[str]:
        if self.measured is None:
            word = "predicted" if self.predicted else UNKNOWN
            yield f"Latency was never measured on {self.manifest.target.device}; it is {word}."
        if self.measured is None or self.measured.peak_rss_bytes is None:
            yield "Memory was not measured."
        if self.energy is None:
            yield "Energy per inference was not measured; energy of training is not recorded."
        if self.target is None or self.target.soak is None:
            yield "No long run under load (`rsedge soak`) is recorded: a worst case, heat and clocks over time are not known."
        if self.target is not None and self.target.provenance != "measured" and self.target.reason:
            yield f"How accuracy was found: {self.target.reason}."

    def _of_accuracy(self) -> Iterator[str]:
        if self.report is None:
            yield "Intervals, data and the teacher's licence are not known from the bundle alone; the run's report has them."
            return
        bare = [figure.title for figure in self.figures if figure.interval is None]
        if bare:
            yield f"No interval is known of: {', '.join(bare)}."
        yield from (f"{note}." for split in self.report.data.splits.values() if (note := split.note))
        yield from (note if note.endswith(".") else f"{note}." for note in self.report.notes)

    def _of_origin(self) -> Iterator[str]:
        yield "A licence of the compressed weights is not stated by whoever made them; the teacher's and the data's may bind them."
        yield "Fairness, bias and behaviour on other sensors, seasons and regions than the test data's were not assessed."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
