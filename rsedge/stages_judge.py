"""What became of the recipe's gates, from the records of the stages: before bundles are written, since they carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsedge.data.evidence import Evidence
from rsedge.data.verdict import Verdict
from rsedge.devices.measure import Measurement
from rsedge.gates import Facts, judge
from rsedge.recipe import Recipe
from rsedge.runtimes.manifest import Target
from rsedge.stage import StageResult

Results = Mapping[str, StageResult]


def verdicts(recipe: Recipe, results: Results) -> dict[str, Verdict]:
    """Every target's gates, judged, with what is to be known of the test set that they rest on."""
    measured, note = measurements(results), results["data"].value["splits"]["test"]["note"]
    found = {}
    for target in recipe.parsed_targets:
        facts = facts_of(target, results, measured, note)
        found[target.name] = Verdict.of(judge(g, target.name, facts) for g in recipe.gates_for(target.name))
    return found


def measurements(results: Results) -> dict[str, Measurement]:
    """What was timed in the one interleaved run of verify, by name."""
    return {n: Measurement.model_validate(m) for n, m in results["verify"].value["measurements"].items()}


def facts_of(target: Target, results: Results, measured: Mapping[str, Measurement], note: str | None) -> Facts:
    """What the stages found out about a target."""
    found, own = results["verify"].value["targets"][target.name], measured.get(target.name)
    return Facts(
        evidence=evidence_of(target, results),
        size_bytes=found["size_bytes"],
        peak_rss_bytes=own.peak_rss_bytes if own else None,
        measured=own,
        baselines=measured,
        predicted=found.get("interval"),
        note=note,
    )


def evidence_of(target: Target, results: Results) -> dict[str, Evidence]:
    """What is known of a target's metrics, from all stages that judge."""
    found: dict[str, Any] = dict(results["verify"].value["targets"][target.name]["evidence"])
    if "captions" in results:
        found |= results["captions"].value["targets"][target.name]["evidence"]
    if "crossval" in results:
        found |= results["crossval"].value["evidence"].get("int8" if target.precision == "int8" else "f32", {})
    return {name: Evidence.model_validate(e) for name, e in found.items()}


def stored_verdicts(results: Results) -> dict[str, Verdict]:
    """As :func:`verdicts`, as the bundles carry them."""
    return {n: Verdict.model_validate(v) for n, v in results["bundle"].value["verdicts"].items()}
