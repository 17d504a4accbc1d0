"""What became of a recipe's gates, as records that reports and bundles carry, and how they read.

A gate is a statistical statement: ``passed`` or ``failed`` where the whole 95 % interval of its value lies on one side of the
limit, ``undecided`` where the interval straddles it or there is none, and then the value says which way it leans. Figures are
written from metric, constraint, limit and baseline; no name is ever taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsedge.data import numbers
from rsedge.data.metrics.table import FLOORS, Constraint, row_of

GateOutcome = Literal["passed", "failed", "undecided", "not taken"]
Outcome = Literal["passed", "failed", "undecided", "no gates"]
Side = Literal["passed", "failed"]
NO_GATES = "no gates: nothing was judged"
NO_VERDICT = "no verdict in this bundle"
ONE = {
    "blocks": "block",
    "groups": "group",
    "samples": "sample",
    "images": "image",
    "turns": "turn",
    "processes": "process",
}
"""Units, one of each."""
SHARE_DECIMALS, SCORE_DECIMALS = 1, 3
"""Of percentages and of scores, where no limit asks for more."""
MANY = 1_000_000
"""More units than this are not counted out."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Gate(_Record):
    """One constraint of the recipe for one target, with what was found.

    ``name`` and ``passed`` say for readers of the file what the other fields say; they are filled in where left out.
    """

    name: str = ""
    passed: bool = Field(
        default=False, description="whether the value meets the limit, decided or not: the exit code's view"
    )
    metric: str = Field(pattern="^[a-z][a-z0-9_]*$", description="a name of the table, or of a package's metric")
    constraint: Constraint
    limit: float
    over: str | None = Field(default=None, description="what a speed-up is over")
    target: str
    part: str | None = Field(default=None, description="of a network of several parts; None: the whole")
    value: float | None = Field(description="a drop is positive where the target is worse; None: not taken")
    interval: tuple[float, float] | None = Field(
        default=None, description="95 %; of predictions the range they are expected in"
    )
    n: int | None = Field(default=None, description="how many units the interval rests on")
    unit: str | None = Field(
        default=None, description="blocks, groups, samples, images, turns; None: the value is exact"
    )
    outcome: GateOutcome
    leans: Side | None = Field(default=None, description="of undecided gates: what the value alone says")
    more_needed: int | None = Field(default=None, description="about how many more units would decide it")
    note: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(values.get("limit"), int | float):
            return values
        values = dict(values)
        over = f" over {values['over']}" if values.get("over") else ""
        part = f"{values['part']}: " if values.get("part") else ""
        name = f"{part}{values.get('metric')} {values.get('constraint')} {values['limit']:g}{over}"
        passed = "passed" in (values.get("outcome"), values.get("leans"))
        for field, found in (("name", name), ("passed", passed)):
            if values.setdefault(field, found) != found:
                raise ValueError(f"{field} says {values[field]!r}, the other fields {found!r}")
        return values

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        if (self.outcome == "undecided") != (self.leans is not None):
            raise ValueError(f"{self.name}: undecided gates, and only they, lean to one side")
        if (self.outcome == "not taken") != (self.value is None):
            raise ValueError(f"{self.name}: a gate without a value was not taken")
        if self.value is not None:
            self._follows(self.value)
        return self

    def _follows(self, value: float) -> None:
        """The outcome is what value, interval and limit say."""
        figures = (value,) if self.outcome == "undecided" else (value, *(self.interval or ()))
        sides = {"passed" if self._holds(v) else "failed" for v in figures}
        if sides != {self.leans or self.outcome}:
            raise ValueError(f"{self.name}: outcome says '{self.word}', value and interval say otherwise")

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.constraint in FLOORS else value <= self.limit

    @property
    def decided(self) -> bool:
        return self.outcome in ("passed", "failed")

    @property
    def predicted(self) -> bool:
        """Whether its value is a prediction: a range that rests on no units."""
        return self.interval is not None and self.unit is None

    @property
    def word(self) -> str:
        """The outcome, and of an undecided gate the side it leans to."""
        return self.outcome if self.leans is None else f"{self.outcome}, leans to {self.leans}"


def gate_decimals(gate: Gate) -> int:
    """Decimals that tell the gate's limit from its neighbours, of the figures that have a fixed number of them."""
    percent = gate.constraint == "max_relative_drop" or row_of(gate.metric).unit == "share"
    return _places(100 * gate.limit, SHARE_DECIMALS) if percent else _places(gate.limit, SCORE_DECIMALS)


def gate_figure(gate: Gate, value: float | None, decimals: int | None = None) -> str:
    """A value or limit of a gate in its unit; with so many ``decimals``, else with as many as its limit needs."""
    if value is None:
        return "not taken"
    places = gate_decimals(gate) if decimals is None else decimals
    if gate.constraint == "min_speedup":
        return numbers.times(value)
    if gate.constraint == "max_relative_drop":
        return f"{numbers.fixed(100 * value, places)} %"
    return metric_figure(gate.metric, value, places)


def _places(limit: float, least: int) -> int:
    """Decimals that tell a limit from its neighbours: 0.9995 is not 100.0 %."""
    return max(least, len(f"{limit:.6f}".rstrip("0").partition(".")[2]))


def metric_figure(metric: str, value: float | None, decimals: int | None = None) -> str:
    """A metric's figure in the unit that the table gives it; scores and shares with so many ``decimals`` where that is given."""
    unit = row_of(metric).unit
    if value is None:
        return numbers.DASH
    if unit == "bytes":
        return numbers.size(value)
    if unit == "ms":
        return numbers.milliseconds(value)
    if unit == "share":
        return f"{numbers.fixed(100 * value, SHARE_DECIMALS if decimals is None else decimals)} %"
    if unit == "score":
        return numbers.fixed(value, SCORE_DECIMALS if decimals is None else decimals)
    return numbers.significant(value) + {"per second": "/s", "dB": " dB"}.get(unit, "")


def limit_text(gate: Gate) -> str:
    """A gate's limit with the side it works on, e.g. ``≥ 15.0×``."""
    return f"{'≥' if gate.constraint in FLOORS else '≤'} {gate_figure(gate, gate.limit)}"


def statement(gate: Gate) -> str:
    """What the gate asks, in words."""
    title, limit = row_of(gate.metric).title, gate_figure(gate, gate.limit)
    if gate.part is not None:
        title = f"{gate.part}: {title}"
    if gate.constraint == "max_drop":
        return f"{title} at most {limit} under the teacher's"
    if gate.constraint == "max_relative_drop":
        return f"{title} at most {limit} of the teacher's lower"
    if gate.constraint == "min_speedup":
        return f"at least {limit} as fast as {gate.over}"
    return f"{title} at {'least' if gate.constraint in FLOORS else 'most'} {limit}"


def interval_text(gate: Gate, decimals: int | None = None) -> str:
    """The interval with what it rests on; empty where the value is exact or was not taken."""
    if gate.interval is None:
        return ""
    low, high = (gate_figure(gate, v, decimals) for v in gate.interval)
    if gate.predicted:
        return f"predicted {low} to {high}"
    return f"95 % interval {low} to {high}, {gate.n:,} {gate.unit}"


def more_text(gate: Gate) -> str:
    """How an undecided gate would be decided; empty for others."""
    if gate.outcome != "undecided":
        return ""
    if gate.unit is None:
        return "a measurement on the device would decide"
    if gate.more_needed is None:
        return f"more {gate.unit} are needed to decide"
    if gate.more_needed > MANY:
        return f"no feasible number of {gate.unit} would decide: the value is at the limit"
    unit = ONE[gate.unit] if gate.more_needed == 1 and gate.unit in ONE else gate.unit
    return f"about {gate.more_needed:,} more {unit} would decide"


def gate_line(gate: Gate) -> str:
    """All of a gate in one line."""
    # The outcome of a gate without a figure has said so.
    figure = "" if gate.value is None else f": {gate_figure(gate, gate.value)}"
    parts = [
        f"{statement(gate)}{figure}",
        interval_text(gate),
        more_text(gate),
        gate.note or "",
    ]
    return f"{gate.word}: " + "; ".join(p for p in parts if p)


class Verdict(_Record):
    """What became of all gates of a target, or of a run."""

    outcome: Outcome
    leans: Side | None = Field(default=None, description="of undecided ones: what the values alone say")
    gates: tuple[Gate, ...] = ()

    @classmethod
    def of(cls, gates: Iterable[Gate]) -> Verdict:
        """Failed where a gate failed or was not taken, else undecided where one is, else passed."""
        gates = tuple(gates)
        outcome, leans = _outcome(gates)
        return cls(outcome=outcome, leans=leans, gates=gates)

    @model_validator(mode="after")
    def _follows(self) -> Verdict:
        if (self.outcome, self.leans) != _outcome(self.gates):
            raise ValueError(f"outcome says '{self.outcome}', the gates say '{_outcome(self.gates)[0]}'")
        return self

    @property
    def holds(self) -> bool:
        """What the exit code goes by: no gate is failed, not taken, or undecided and leaning to failed."""
        return all(g.passed for g in self.gates)

    @property
    def decided(self) -> bool:
        return all(g.decided for g in self.gates)

    @property
    def proven(self) -> bool:
        """There are gates, and every one passed and is decided."""
        return self.outcome == "passed"

    @property
    def undecided(self) -> tuple[Gate, ...]:
        return tuple(g for g in self.gates if g.outcome == "undecided")

    @property
    def missed(self) -> tuple[Gate, ...]:
        """Gates that do not hold."""
        return tuple(g for g in self.gates if not g.passed)

    @property
    def word(self) -> str:
        """In two or three words; ``rejected: no gain`` where nothing is missed but the speed-up asked for."""
        missed = self.missed
        if self.outcome == "failed" and all(g.constraint == "min_speedup" and g.value is not None for g in missed):
            return "rejected: no gain"
        return self.outcome if self.leans is None else f"{self.outcome}, leans to {self.leans}"

    @property
    def headline(self) -> str:
        """One sentence: what was judged, and what would decide what is open."""
        if not self.gates:
            return NO_GATES
        count = len(self.gates)
        wholly = f"{count} gate{'s' if count != 1 else ''}"
        open_text = (
            f"{len(self.undecided)} of {wholly} undecided; {_to_decide(self.undecided)}" if self.undecided else ""
        )
        if self.outcome == "failed":
            lost = len([g for g in self.gates if g.outcome in ("failed", "not taken")])
            return f"failed: {lost} of {wholly}" + (f"; {open_text}" if open_text else "")
        if self.outcome == "undecided":
            return f"undecided, leans to {self.leans}: {open_text}"
        passed = f"all {count} gates passed" if count > 1 else "the gate passed"
        predicted = sum(g.predicted for g in self.gates)
        # What flies on such a verdict must know which part of it nobody has measured.
        return passed + (f"{f', {predicted} of them' if count > 1 else ''} on a predicted latency" if predicted else "")


def verdict_text(found: Verdict | None) -> str:
    """What a bundle carries, in a line."""
    return NO_VERDICT if found is None else f"verdict: {found.headline}"


def verdict_record(found: Verdict | None) -> dict[str, Any] | None:
    """As ``--json`` prints it; None for bundles made before it was kept."""
    return None if found is None else {"headline": found.headline, **found.model_dump(mode="json")}


def _outcome(gates: Sequence[Gate]) -> tuple[Outcome, Side | None]:
    if not gates:
        return "no gates", None
    if any(g.outcome in ("failed", "not taken") for g in gates):
        return "failed", None
    if all(g.outcome == "passed" for g in gates):
        return "passed", None
    return "undecided", "passed" if all(g.passed for g in gates) else "failed"


def _to_decide(gates: Sequence[Gate]) -> str:
    """What would decide the gate that is furthest from it."""
    worst = max(gates, key=lambda g: (g.more_needed is None, g.more_needed or 0))
    return f"{more_text(worst)} ({statement(worst)}, {worst.target})"
