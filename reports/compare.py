"""Runs side by side: what changed per target, and what cannot be set against each other and why, from their ``report.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import Gate, gate_figure, interval_text
from rsedge.reports import figures as f
from rsedge.reports.schema import Environment, Report, TargetRecord
from rsedge.reports.texts import number

SPEEDUP = "speedup"
OWN = {SPEEDUP: True, "throughput_per_s": True, "params": False, "macs": False}
"""Figures that are no metrics of the table -> whether more of it is better."""
MEASURED = ("latency", "throughput_per_s", "memory")
"""Figures that depend on the machine, whatever the table says of gates on them."""
MEASURED_SLACK = 0.1
"""Share by which they differ between two runs of the same thing, which were not taken in turns: less is no regression."""


@dataclass(frozen=True)
class Figure:
    """A figure of one target, in the unit of the table of metrics (ms, bytes, shares as 0..1).

    ``predicted`` is the range that a prediction is expected in, ``interval`` the 95 % interval of a figure that has one; of
    ``noisy`` ones other work loaded the machine.
    """

    value: float
    predicted: tuple[float, float] | None = None
    noisy: bool = False
    interval: tuple[float, float] | None = None

    def text(self, name: str) -> str:
        """As people read it; never a bare number where it was predicted."""
        if self.predicted is not None:
            low, high = (_written(name, value) for value in self.predicted)
            return f"predicted {low} to {high}"
        text = _written(name, self.value)
        if self.interval is not None:
            low, high = (_written(name, value) for value in self.interval)
            text += f" ({low} to {high})"
        return text + (" (noisy)" if self.noisy else "")

    def bounds(self, name: str) -> tuple[float, float]:
        """Between what it may lie as far as is known; of an exact figure itself twice."""
        if (known := self.predicted or self.interval) is not None:
            return known
        slack = MEASURED_SLACK if name in MEASURED else 0.0
        return self.value * (1 - slack), self.value * (1 + slack)


def _written(name: str, value: float) -> str:
    return f.times(value) if name == SPEEDUP else f.figure(name, value)


@dataclass(frozen=True)
class Change:
    """One figure of one target before and after; None where a run does not have it.

    ``reason`` says why the two cannot be set against each other; None where they can.
    """

    target: str
    figure: str
    before: Figure | None
    after: Figure | None
    reason: str | None = None

    @property
    def comparable(self) -> bool:
        return self.reason is None

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return METRICS[self.figure].higher if self.figure in METRICS else OWN[self.figure]

    @property
    def ratio(self) -> float | None:
        """after / before; None where they are not comparable, or not both above zero."""
        if not self.comparable or self.before is None or self.after is None:
            return None
        before, after = self.before.value, self.after.value
        return after / before if before > 0 and after > 0 else None

    @property
    def direction(self) -> str | None:
        """``better``, ``worse`` or ``equal`` by the values alone; None where they are not comparable."""
        if not self.comparable or self.before is None or self.after is None:
            return None
        if self.before.value == self.after.value:
            return "equal"
        return "better" if (self.after.value > self.before.value) == self.higher else "worse"

    @property
    def regression(self) -> bool:
        """Whether it got worse by more than is known of it: each side lies outside the other's interval, on the worse side.

        Measured figures without an interval need a tenth; those of a machine under load show nothing.
        """
        if (
            self.direction != "worse"
            or self.before is None
            or self.after is None
            or self.before.noisy
            or self.after.noisy
        ):
            return False
        before, after = self.before.bounds(self.figure), self.after.bounds(self.figure)
        if self.higher:
            return self.after.value < before[0] and self.before.value > after[1]
        return self.after.value > before[1] and self.before.value < after[0]

    @property
    def text(self) -> str:
        """The change in words, with the reason where there is nothing to say of it."""
        if self.direction is None or self.before is None or self.after is None:
            return f"not comparable: {self.reason}"
        parts = [f.times(self.ratio)] if self.ratio is not None else []
        return ", ".join([*parts, self.direction, *(["predicted"] if self.after.predicted else [])])


@dataclass(frozen=True)
class GateChange:
    """One gate of one target before and after; None where a run does not have it."""

    target: str
    before: Gate | None
    after: Gate | None

    @property
    def gate(self) -> Gate:
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def regression(self) -> bool:
        """Whether it held before and does not any more."""
        return self.before is not None and self.after is not None and self.before.passed and not self.after.passed


@dataclass(frozen=True)
class Comparison:
    """All of it, targets in the order of the reports.

    Attributes:
        differences: what the runs do not share, in words.
        gone: targets that the later run does not have.
    """

    differences: tuple[str, ...]
    changes: tuple[Change, ...]
    gates: tuple[GateChange, ...]
    gone: tuple[str, ...] = ()

    @property
    def regressions(self) -> list[str]:
        """What got worse, in words: figures beyond their intervals, gates that held and do not, targets that are gone."""
        figures = [
            f"{c.target}: {f.label(c.figure)}: {c.before.text(c.figure)} -> {c.after.text(c.figure)}"
            for c in self.changes
            if c.regression and c.before is not None and c.after is not None
        ]
        gates = [
            f"{g.target}: gate {g.gate.name}: {gate_text(g.before)} -> {gate_text(g.after)}"
            for g in self.gates
            if g.regression
        ]
        return [*figures, *gates, *(f"{name}: no such target after" for name in self.gone)]

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys([*(c.target for c in self.changes), *(g.target for g in self.gates)]))


def compare(before: Report, after: Report) -> Comparison:
    """Every figure and gate of every target that either report has."""
    shared = _Shared.of(before, after)
    old, new = ({t.name: t for t in r.targets} for r in (before, after))
    names = list(dict.fromkeys([*old, *new]))
    return Comparison(
        differences=tuple(shared.words(before, after)),
        changes=tuple(change for name in names for change in _changes(name, old.get(name), new.get(name), shared)),
        gates=tuple(gate for name in names for gate in _gates(name, old.get(name), new.get(name))),
        gone=tuple(name for name in old if name not in new),
    )


def check_tasks(runs: Mapping[str, Report]) -> None:
    """Refuses runs that cannot be set side by side at all.

    Args:
        runs: reports by the names they were given by; every one is held against the first.

    Raises:
        RequestError: one has other outputs, or is judged by metrics of which the first has none; names the run.
    """
    (first, base), *others = runs.items()
    for name, report in others:
        if report.classes != base.classes:
            has, wants = (", ".join(r.classes) for r in (report, base))
            raise RequestError(
                f"{name}: is of another task: its outputs are {has}, those of {first} are {wants}; leave it out"
            )
        own, judged = _judged_by(report), _judged_by(base)
        if own and judged and not own & judged:
            has, wants = (", ".join(sorted(names)) for names in (own, judged))
            raise RequestError(f"{name}: is of another task: it is judged by {has}, {first} by {wants}; leave it out")


def _judged_by(report: Report) -> set[str]:
    """Metrics worked out of outputs."""
    return {name for t in report.targets for name in t.metrics if name in METRICS and METRICS[name].computed}


def gate_text(gate: Gate | None) -> str:
    """A gate's outcome with its value and interval; of one that was not taken, why."""
    if gate is None:
        return f.DASH
    why = gate.note if gate.value is None else ""
    figure = gate_figure(gate, gate.value) if gate.value is not None else ""
    return "; ".join(part for part in (gate.word, figure, interval_text(gate), why) if part)


@dataclass(frozen=True)
class _Shared:
    """What two runs do not have in common, in words; None where they do."""

    machine: str | None
    data: str | None
    teacher: str | None

    @classmethod
    def of(cls, before: Report, after: Report) -> _Shared:
        machines = [r.environment.machine if r.environment else None for r in (before, after)]
        unknown = "it is not known on what machine" if None in machines else None
        machine = unknown or ("other machine" if machines[0] != machines[1] else None)
        data = "other data" if before.data.manifest_sha256 != after.data.manifest_sha256 else None
        return cls(machine, data, _other_teacher(before, after, data is None))

    def words(self, before: Report, after: Report) -> Iterator[str]:
        """One line for each, with what either run has."""
        both = (before, after)
        rows: list[tuple[str | None, Callable[[Report], str]]] = [
            (self.machine, lambda r: _machine(r.environment)),
            (self.data, lambda r: f"manifest {r.data.manifest_sha256[:12]}"),
            (self.teacher, lambda r: f"{r.teacher.name}, {f.size(r.teacher.size_bytes)}"),
        ]
        yield from (f"{why}: {' -> '.join(map(checked, both))}" for why, checked in rows if why is not None)
        tools = [r.environment.versions if r.environment else {} for r in both]
        for name in sorted(tools[0].keys() | tools[1].keys()):
            if tools[0].get(name) != tools[1].get(name):
                yield f"other version of {name}: {' -> '.join(t.get(name, 'none') for t in tools)}"

    def reason(self, name: str) -> str | None:
        """Why a figure of the two cannot be compared, as far as the runs say."""
        if name == SPEEDUP:
            return self.machine or self.teacher
        needs = set(METRICS[name].needs) if name in METRICS else set()
        if name in MEASURED or "measurement" in needs:
            return self.machine
        if name not in METRICS or not (METRICS[name].computed or needs):  # sizes and counts
            return None
        return self.data or (None if {"labels", "texts"} & needs else self.teacher)


def _other_teacher(before: Report, after: Report, same_data: bool) -> str | None:
    teachers = [(r.teacher.name, r.teacher.size_bytes, r.teacher.params) for r in (before, after)]
    if teachers[0] != teachers[1]:
        return "other teacher"
    # Weights of one size may differ; what they answer on the same data tells.
    differ = same_data and before.teacher.metrics != after.teacher.metrics
    return "the teacher's own figures differ" if differ else None


def _machine(found: Environment | None) -> str:
    if found is None:
        return "not recorded"
    return f"{found.cpu} ({found.cores} cores, {found.threads} threads, {' '.join(found.instruction_sets)})"


def _changes(name: str, before: TargetRecord | None, after: TargetRecord | None, shared: _Shared) -> Iterator[Change]:
    old, new = _figures(before), _figures(after)
    for figure in dict.fromkeys([*old, *new]):
        sides = old.get(figure), new.get(figure)
        reason = _missing((before, after), sides) or _of_two_kinds(*sides)
        if reason is None and _predicted(*sides):
            reason = _other_basis(before, after)
        elif reason is None:
            reason = shared.reason(figure)
        yield Change(name, figure, *sides, reason)


def _missing(targets: tuple[object, object], sides: tuple[Figure | None, Figure | None]) -> str | None:
    for when, target, figure in zip(("before", "after"), targets, sides, strict=True):
        if target is None or figure is None:
            return f"no such target {when}" if target is None else f"no such figure {when}"
    return None


def _predicted(*sides: Figure | None) -> bool:
    return any(one is not None and one.predicted is not None for one in sides)


def _of_two_kinds(before: Figure | None, after: Figure | None) -> str | None:
    kinds = ["predicted" if _predicted(one) else "measured" for one in (before, after)]
    return None if kinds[0] == kinds[1] else f"{kinds[0]} before, {kinds[1]} after"


def _other_basis(before: TargetRecord | None, after: TargetRecord | None) -> str | None:
    found = [t.interval.basis if t is not None and t.interval else None for t in (before, after)]
    return None if found[0] == found[1] else f"predicted from other evidence ({found[0]}; {found[1]})"


def _figures(target: TargetRecord | None) -> dict[str, Figure]:
    """By the names of the table of metrics, in its order; then what the target costs."""
    if target is None:
        return {}
    own = {
        "throughput_per_s": target.throughput_per_s,
        "size": target.size_bytes,
        "memory": target.peak_rss_bytes,
        "params": target.params,
        "macs": target.macs,
    }
    values = target.metrics | {"agreement": target.agreement}
    scores = {name: number(values.get(name)) for name in METRICS if name not in own}
    latency = {} if (found := _latency(target)) is None else {"latency": found}
    counted = {name: Figure(float(value)) for name, value in own.items() if value is not None}
    over = target.speedup
    speedup = {} if over is None else {SPEEDUP: Figure(over.value, interval=(over.low, over.high))}
    return {n: _score(target, n, v) for n, v in scores.items() if v is not None} | latency | speedup | counted


def _score(target: TargetRecord, name: str, value: float) -> Figure:
    """A metric with its interval, where that is of this very figure."""
    found = target.evidence.get(name)
    return Figure(value, interval=found.own.interval if found is not None and found.own.value == value else None)


def _latency(target: TargetRecord) -> Figure | None:
    """Its median where it was measured, else the middle of its predicted range."""
    if target.interval is not None:
        return Figure(target.interval.mid_ms, (target.interval.low_ms, target.interval.high_ms))
    noisy = target.measurement is not None and target.measurement.noisy
    return None if target.latency_ms is None else Figure(target.latency_ms.p50, noisy=noisy)


def _gates(name: str, before: TargetRecord | None, after: TargetRecord | None) -> Iterator[GateChange]:
    """By what they ask: a gate whose limit changed is another gate."""
    old, new = ({g.name: g for g in t.gates} if t is not None else {} for t in (before, after))
    for gate in dict.fromkeys([*old, *new]):
        yield GateChange(name, old.get(gate), new.get(gate))
