"""Gates: the recipe's constraints, applied to what was found for a target. Pure functions, no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rsedge.devices.measure import Measurement, speedup
from rsedge.recipe import GateSection
from rsedge.reports.schema import Gate

TEXT_METRICS = ("rouge_l", "bleu4", "cider")


def judge(
    gate: GateSection,
    found: Mapping[str, Any],
    teacher: Mapping[str, Any],
    measured: Measurement | None,
    baselines: Mapping[str, Measurement],
) -> Gate:
    """Whether one target meets one gate.

    Args:
        found: of the target: ``metrics``, ``agreement``, ``size_bytes``, ``peak_rss_bytes``, ``interval``.
        teacher: the teacher's metrics on the same tiles.
        measured: the target's latency; None where it was not measured.
        baselines: measurements of the same interleaved run, by the names that ``over`` takes.

    Returns:
        The gate with its value; a value that could not be taken fails the gate and says why.
    """
    if gate.metric == "latency":
        return _latency(gate, found, measured, baselines)
    value, note = _value(gate, found, teacher)
    return _gate(gate, value, note)


def _value(gate: GateSection, found: Mapping[str, Any], teacher: Mapping[str, Any]) -> tuple[float | None, str | None]:
    if gate.metric == "agreement":
        return found.get("agreement"), None
    if gate.metric in ("size", "memory"):
        key = "size_bytes" if gate.metric == "size" else "peak_rss_bytes"
        value = found.get(key)
        return (None, f"{gate.metric} was not taken") if value is None else (float(value), None)
    own, reference = found.get("metrics", {}).get(gate.metric), teacher.get(gate.metric)
    if own is None or (reference is None and gate.constraint not in ("min", "max")):
        return None, f"{gate.metric} was not taken: {_why_not(gate.metric)}"
    if reference is None:
        return float(own), None
    note = f"{gate.metric} {own:.4f}, teacher {reference:.4f}"
    if gate.constraint == "max_drop":
        return float(reference - own), note
    if gate.constraint == "max_relative_drop":
        return float((reference - own) / reference) if reference else 0.0, note
    return float(own), note


def _why_not(metric: str) -> str:
    if metric in ("first_token_ms", "tokens_per_s"):
        return "the target is not this machine"
    return "validation has no texts" if metric in TEXT_METRICS else "validation has no labels"


def _latency(
    gate: GateSection, found: Mapping[str, Any], measured: Measurement | None, baselines: Mapping[str, Measurement]
) -> Gate:
    if gate.min_speedup is not None:
        reference = baselines.get(gate.over or "")
        if measured is None or reference is None:
            return _gate(gate, None, f"{gate.over} and the target were not measured in one run")
        ratio = speedup(reference, measured)
        return _gate(gate, ratio.value, f"95 % interval {ratio.low:.1f} to {ratio.high:.1f} over {ratio.turns} turns")
    if measured is not None:
        return _gate(gate, measured.latency_ms.p50, "p50, measured")
    interval = found.get("interval")
    if interval is None:
        return _gate(gate, None, "no latency: neither measured nor predicted")
    # A predicted latency passes only if the whole interval does.
    return _gate(gate, float(interval["high_ms"]), "upper end of the predicted interval")


def _gate(gate: GateSection, value: float | None, note: str | None) -> Gate:
    if value is not None and not math.isfinite(value):
        value, note = None, f"{value} is not a number"
    floor = gate.constraint in ("min", "min_speedup")
    passed = value is not None and (value >= gate.limit if floor else value <= gate.limit)
    return Gate(name=gate.name, passed=passed, value=value, limit=gate.limit, note=note)
