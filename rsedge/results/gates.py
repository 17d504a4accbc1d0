"""Gates: the recipe's constraints, applied to what was found for a target. Pure functions, no files."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.statistics import Estimate, estimate, median, more_units
from rsedge.data.metrics.table import FLOORS, METRICS
from rsedge.data.metrics.verdict import Gate, GateOutcome, gate_decimals, gate_figure, metric_figure, statement
from rsedge.devices.measure.protocol import Measurement, Speedup, speedup
from rsedge.recipe.schema import GateSection, Recipe

MARGIN = 1.0
"""Standard errors by which the search keeps away from a limit."""
LEAST_SCALE = 0.01
"""Shortfalls are told as shares of the room that a limit leaves, which is taken as no smaller than this."""
MISSING = {
    "measurement": "the target is not this machine",
    "folds": "the recipe has no cross-validation",
    "texts": "the data have no texts",
    "labels": "the data have no labels",
}
"""Why a metric was not taken, by what it needs."""


@dataclass(frozen=True)
class Facts:
    """What is known of one target when it is judged.

    Attributes:
        evidence: by the metric's name (:func:`rsedge.data.metrics.evidence.evidence`).
        memory: peaks (bytes), one per fresh process that ran it; empty where none did.
        measured: its latency; None where it was not measured.
        baselines: measurements of the same interleaved run, by the names that ``over`` takes.
        predicted: ``low_ms``, ``mid_ms`` and ``high_ms`` of a latency that was not measured.
        note: what is to be known of the test set, e.g. that it is small.
        folds_note: what is to be known of cross-validated figures.
    """

    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    size_bytes: int | None = None
    memory: Sequence[int] = ()
    measured: Measurement | None = None
    baselines: Mapping[str, Measurement] = field(default_factory=dict)
    predicted: Mapping[str, Any] | None = None
    note: str | None = None
    folds_note: str | None = None


def judge(gate: GateSection, target: str, facts: Facts) -> Gate:
    """What became of a gate for one target; a value that could not be taken says why."""
    if gate.metric == "latency":
        return _speedup(gate, target, facts) if gate.constraint == "min_speedup" else _latency(gate, target, facts)
    if gate.metric == "size":
        return _size(gate, target, facts)
    if gate.metric == "memory":
        return _memory(gate, target, facts)
    found = facts.evidence.get(gate.metric)
    if found is None:
        return _not_taken(gate, target, _why_not(gate.metric, facts.evidence))
    # Cross-validation judges all samples, whatever the test set holds.
    note = facts.folds_note if "folds" in METRICS[gate.metric].needs else facts.note
    return _statistical(gate, target, found, note)


def _why_not(metric: str, had: Collection[str] = ()) -> str:
    """In words; ``had`` are the metrics that there are, which may tell that what is needed is not missing."""
    needs = set(METRICS[metric].needs) - {need for name in had for need in METRICS[name].needs}
    return next((words for need, words in MISSING.items() if need in needs), "the task has no such figure")


def of_evidence(gate: GateSection, found: Evidence) -> Estimate:
    """The value that a gate limits: the figure itself, or how far it lies under the teacher's."""
    if gate.constraint == "max_drop":
        return found.drop or Estimate(value=None)
    if gate.constraint == "max_relative_drop":
        return found.relative_drop or Estimate(value=None)
    return found.own


def _statistical(gate: GateSection, target: str, found: Evidence, about: str | None) -> Gate:
    value = of_evidence(gate, found)
    if value.value is None:
        return _not_taken(gate, target, found.note or _why_not(gate.metric))
    own, teacher = found.own.value, found.teacher
    against = None if own is None or teacher is None else _beside(gate, target, own, teacher)
    # What the metric's note says of a share of the teacher's figure does not concern other limits.
    why = found.note if value.interval is None else None
    note = "; ".join(words for words in (against, why, about) if words) or None
    return _decided(gate, target, value, found.n, found.unit, note)


def _beside(gate: GateSection, target: str, own: float, teacher: float) -> str:
    """Both figures, with as many decimals as the gate has."""
    shown = _gate(gate, target, Estimate(value=None), "not taken", None)
    places = None if gate.constraint == "max_relative_drop" else gate_decimals(shown)
    return f"{gate.metric} {metric_figure(gate.metric, own, places)}, teacher {metric_figure(gate.metric, teacher, places)}"


def _speedup(gate: GateSection, target: str, facts: Facts) -> Gate:
    reference = facts.baselines.get(gate.over or "")
    if facts.measured is None or reference is None:
        return _not_taken(gate, target, f"{gate.over} and the target were not measured in one run")
    found = speedup(reference, facts.measured)
    if found.clock == "processor time":
        busy = "" if facts.measured.load is None else f": {facts.measured.load.words()}"
        threads = facts.measured.threads or 1
        of = f" of {threads} threads together" if threads > 1 else ""
        note = f"medians of interleaved turns, by processor time{of}{busy}"
    else:
        note = "medians of interleaved turns" + _noise(reference, facts.measured)
    return _decided(gate, target, *of_speedup(found), "turns", note)


def _noise(*measured: Measurement) -> str:
    """To be added to a note: that turns of a measurement spread far, as they do beside other work."""
    return "; noisy: other work loaded this machine" if any(m.noisy for m in measured) else ""


def of_speedup(ratio: Speedup) -> tuple[Estimate, int]:
    """A speed-up as a value with its interval, and its number of turns."""
    if ratio.turns < 2:
        return Estimate(value=ratio.value), ratio.turns
    se = (ratio.high - ratio.low) / (2 * 1.959964)
    return Estimate(value=ratio.value, interval=(ratio.low, ratio.high), se=se), ratio.turns


def _latency(gate: GateSection, target: str, facts: Facts) -> Gate:
    if facts.measured is not None:
        turns = estimate(median(facts.measured.turns_ms))
        value = turns.model_copy(update={"value": facts.measured.latency_ms.p50})
        return _decided(
            gate, target, value, len(facts.measured.turns_ms), "turns", "p50, measured" + _noise(facts.measured)
        )
    if facts.predicted is None:
        return _not_taken(gate, target, "no latency: neither measured nor predicted")
    low, mid, high = (float(facts.predicted[f"{name}_ms"]) for name in ("low", "mid", "high"))
    # The range of a prediction is a judged one, no 95 % interval: it rests on no number of units.
    return _decided(
        gate, target, Estimate(value=mid, interval=(low, high)), None, None, "predicted, middle of its range"
    )


def _size(gate: GateSection, target: str, facts: Facts) -> Gate:
    if facts.size_bytes is None:
        return _not_taken(gate, target, "no size is known")
    held = _holds(gate, facts.size_bytes)
    return _gate(gate, target, Estimate(value=facts.size_bytes), "passed" if held else "failed", None)


def _memory(gate: GateSection, target: str, facts: Facts) -> Gate:
    if not facts.memory:
        return _not_taken(gate, target, MISSING["measurement"])
    return _decided(gate, target, estimate(median(facts.memory)), len(facts.memory), "processes", "median of peaks")


def _not_taken(gate: GateSection, target: str, note: str) -> Gate:
    """``note`` is the reason alone: the outcome says the rest."""
    return _gate(gate, target, Estimate(value=None), "not taken", note)


def _decided(
    gate: GateSection, target: str, found: Estimate, n: int | None, unit: str | None, note: str | None
) -> Gate:
    """Decided where the whole interval lies on one side of the limit."""
    if found.value is None or not math.isfinite(found.value):
        return _not_taken(gate, target, note or "no figure")
    sides = {_holds(gate, v) for v in (*(found.interval or ()), found.value)}
    if found.interval is not None and len(sides) == 1:
        return _gate(gate, target, found, "passed" if sides.pop() else "failed", note, n, unit)
    more = None if n is None else more_units(found, n, gate.limit)
    return _gate(gate, target, found, "undecided", note, n, unit, more)


def _holds(gate: GateSection, value: float) -> bool:
    return value >= gate.limit if gate.constraint in FLOORS else value <= gate.limit


def _gate(
    gate: GateSection,
    target: str,
    found: Estimate,
    outcome: GateOutcome,
    note: str | None,
    n: int | None = None,
    unit: str | None = None,
    more: int | None = None,
) -> Gate:
    leans = None
    if outcome == "undecided" and found.value is not None:
        leans = "passed" if _holds(gate, found.value) else "failed"
    return Gate.model_validate({
        "metric": gate.metric, "constraint": gate.constraint, "limit": gate.limit, "over": gate.over, "target": target,
        "value": found.value, "interval": found.interval, "n": n, "unit": unit, "outcome": outcome, "leans": leans,
        "more_needed": more, "note": note,
    })  # fmt: skip


@dataclass(frozen=True)
class SelectionCheck:
    """Whether a candidate may be taken, as far as the selection part can tell.

    Attributes:
        holds: every gate that can be checked there holds, by the margin.
        shortfalls: what does not, in words.
        missed: names of the gates that do not.
        shortfall: the largest of them as a share of the room that its limit leaves; 0 where all hold. For ranking.
        unchecked: gates on accuracy that selection cannot tell, with the reason.
    """

    holds: bool
    shortfalls: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    shortfall: float = 0.0
    unchecked: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words, for a record of trials."""
        return "; ".join(self.shortfalls) if self.shortfalls else "the recipe's gates hold on selection"


def accuracy_gates(recipe: Recipe) -> tuple[GateSection, ...]:
    """The gates on what a network answers, of any target."""
    asked = (g for g in recipe.gates if g.metric not in ("latency", "memory", "size"))
    return tuple(g for g in asked if g.target is None or g.target in recipe.targets)


def gates_on_selection(recipe: Recipe) -> tuple[GateSection, ...]:
    """The gates that :func:`check_on_selection` may ask of an INT8 target: those on accuracy and size."""
    names = {t.name for t in recipe.parsed_targets if t.quantized}
    on_selection = (g for g in recipe.gates if g.metric not in ("latency", "memory"))
    return tuple(g for g in on_selection if g.target is None or g.target in names)


class Gated(Protocol):
    """Whatever has gates: a recipe, or one of its parts."""

    def gates_for(self, target: str) -> tuple[GateSection, ...]: ...


def check_on_selection(
    gated: Gated,
    target: str,
    evidence: Mapping[str, Evidence],
    size_bytes: int | None = None,
    margin: float = MARGIN,
) -> SelectionCheck:
    """Whether a candidate for a target keeps gates on accuracy (and size) on the selection part.

    Args:
        evidence: of the candidate's answers there, against the teacher's.
        size_bytes: of its files, where known.
        margin: standard errors by which each value must keep away from its limit.
    """
    short: list[tuple[float, str, str]] = []
    unchecked = []
    for gate in gated.gates_for(target):
        if gate.metric == "size" and size_bytes is not None:
            found, unit = Estimate(value=float(size_bytes)), "size"
        elif gate.metric in evidence:
            found, unit = of_evidence(gate, evidence[gate.metric]), evidence[gate.metric].unit
            if evidence[gate.metric].own.value is None and evidence[gate.metric].teacher is not None:
                why = evidence[gate.metric].note or "no figure"
                short.append(
                    (1 / LEAST_SCALE, f"{gate.name}: the teacher has a figure, this one has none ({why})", gate.name)
                )
            elif found.value is None:
                unchecked.append(f"{gate.name}: {evidence[gate.metric].note or 'not defined on selection'}")
        else:
            if "measurement" not in METRICS[gate.metric].needs and gate.metric not in ("latency", "size"):
                later = "folds" in METRICS[gate.metric].needs
                unchecked.append(
                    f"{gate.name}: {'judged over the folds, later' if later else _why_not(gate.metric, evidence)}"
                )
            continue
        lost = _shortfall(gate, target, found, margin, unit)
        short += [(*lost, gate.name)] if lost else []
    return SelectionCheck(
        holds=not short,
        shortfalls=tuple(text for _, text, _ in short),
        missed=tuple(name for *_, name in short),
        shortfall=max((share for share, *_ in short), default=0.0),
        unchecked=tuple(unchecked),
    )


def _shortfall(gate: GateSection, target: str, found: Estimate, margin: float, unit: str) -> tuple[float, str] | None:
    if found.value is None:
        return None
    away = margin * (found.se or 0.0)
    sign = -1 if gate.constraint in FLOORS else 1
    excess = sign * (found.value - gate.limit) + away
    if excess <= 0:
        return None
    shown = _gate(gate, target, found, "undecided", None)
    kept = f" (kept {margin:g} standard errors of {away / margin:.3g} away)" if away else ""
    return excess / _room(gate), f"{statement(shown)}: {gate_figure(shown, found.value)} over selection's {unit}{kept}"


def _room(gate: GateSection) -> float:
    """What a limit leaves between itself and the best possible figure."""
    if gate.constraint == "min" and METRICS[gate.metric].unit in ("score", "share") and gate.limit < 1:
        return max(LEAST_SCALE, 1 - gate.limit)
    return max(LEAST_SCALE, abs(gate.limit))
