"""What became of the gates of every part, and of all together, for each target."""

from __future__ import annotations

from rsedge.cache.stage import Results
from rsedge.data.metrics.verdict import Gate, Verdict
from rsedge.recipe.parts import PartsRecipe
from rsedge.results.data import Data
from rsedge.results.gates import Facts, judge
from rsedge.results.parts import PartsVerify


def verdicts(recipe: PartsRecipe, results: Results) -> dict[str, Verdict]:
    """By target: the gates of the whole, then those of each part."""
    return {target: Verdict.of(_gates(recipe, results, target)) for target in recipe.targets}


def _gates(recipe: PartsRecipe, results: Results, target: str) -> list[Gate]:
    verify = results.of(PartsVerify)
    found, note = verify.targets[target], results.of(Data).splits["test"].note
    facts = Facts(
        evidence=found.evidence,
        size_bytes=found.size_bytes,
        measured=verify.measurements.get(target),
        baselines=verify.measurements,
        predicted=None if found.interval is None else found.interval.model_dump(),
        note=note,
    )
    gates = [judge(gate, target, facts) for gate in recipe.gates_for(target)]
    for name, part in found.parts.items():
        own = Facts(evidence=part.evidence, size_bytes=part.size_bytes, note=note)
        gates += [_of_part(judge(gate, target, own), name) for gate in recipe.gates_for(target, name)]
    return gates


def _of_part(gate: Gate, part: str) -> Gate:
    values = gate.model_dump(exclude={"name", "passed"})
    return Gate.model_validate(values | {"part": part})
