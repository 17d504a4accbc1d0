"""What became of the recipe's gates, from the records of the stages: before bundles are written, since they carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsedge.cache.stage import Results
from rsedge.data.errors import RequestError
from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.table import METRICS, RELATIVE, judged_by_task
from rsedge.data.metrics.verdict import Verdict
from rsedge.recipe.schema import GateSection, Recipe
from rsedge.results import records
from rsedge.results.gates import Facts, judge
from rsedge.runtimes.bundle.manifest import Target


def check_gates(gates: Sequence[GateSection], teacher: records.Teacher, whole: bool) -> None:
    """Holds gates on accuracy against the figures that the teacher has on the test set: a student has no others.

    Args:
        whole: the figures are of the whole test set; of a part of it they may be undefined by chance.

    Raises:
        RequestError: none of them is what a gate asks for; or the labels cannot tell it: they give the teacher no figure that
            another could lie under, or, for kappa, are all of one class.
    """
    found = teacher.metrics["f32"]
    has = ["agreement", *(name for name in found if name in METRICS)]
    for index, gate in enumerate(gates):
        undefined = gate.constraint in RELATIVE and gate.metric in found and found[gate.metric] is None
        if whole and (undefined or (gate.metric == "kappa" and _one_class(found))):
            raise RequestError(
                f"gates[{index}]: the test set cannot tell {gate.metric}: its labels are all of one class or value, or there are "
                "too few of them; give others, or limit another metric"
            )
        row = METRICS[gate.metric]
        if gate.metric in has or not judged_by_task(gate.metric):
            continue
        known = f"the test set has {', '.join(n for n in METRICS if n in has)}"
        if "labels" in row.needs and not any("labels" in METRICS[n].needs for n in has):
            raise RequestError(f"gates[{index}]: {gate.metric} needs labels, and the data have none; {known}")
        raise RequestError(f"gates[{index}]: {gate.metric} is no figure of this teacher on these data; {known}")


def _one_class(metrics: Mapping[str, Any]) -> bool:
    """Whether all labels are of one class: kappa is 0 then, or not defined, whatever a network answers."""
    return "confusion" in metrics and sum(any(row) for row in metrics["confusion"]) == 1


def verdicts(recipe: Recipe, results: Results) -> dict[str, Verdict]:
    """Every target's gates, judged, with what is to be known of the test set that they rest on."""
    note = results.of(records.Data).splits["test"].note
    found = {}
    for target in recipe.parsed_targets:
        facts = facts_of(target, results, note)
        found[target.name] = Verdict.of(judge(g, target.name, facts) for g in recipe.gates_for(target.name))
    return found


def facts_of(target: Target, results: Results, note: str | None) -> Facts:
    """What the stages found out about a target."""
    verify = results.of(records.Verify)
    found, own = verify.targets[target.name], verify.measurements.get(target.name)
    crossval = results.maybe(records.Crossval)
    return Facts(
        evidence=evidence_of(target, results),
        size_bytes=found.size_bytes,
        memory=own.peak_rss_readings if own else (),
        measured=own,
        baselines=verify.measurements,
        predicted=None if found.interval is None else found.interval.model_dump(),
        note=note,
        folds_note=None if crossval is None else crossval.notes.get(network_of(target)),
    )


def evidence_of(target: Target, results: Results) -> dict[str, Evidence]:
    """What is known of a target's metrics, from all stages that judge."""
    found = dict(results.of(records.Verify).targets[target.name].evidence)
    if captions := results.maybe(records.Captions):
        found |= captions.targets[target.name].evidence
    if crossval := results.maybe(records.Crossval):
        found |= crossval.evidence.get(network_of(target), {})
    return found


def network_of(target: Target) -> str:
    """Which of the cross-validated networks stands for a target."""
    return target.name if target.quantized else "f32"
