"""``student: auto``: which student of the catalogue, by latency under a limit. Pure: imports no torch, measures nothing.

The largest student (parameters, then MACs) that stays under the limit is taken: what fits is as fast as was asked for, and of
what fits the one that can hold most of the teacher is likely to lose least. Accuracy is not looked at: that would take a
distillation per candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from rsedge.data.bands import InputSpec
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.models.students import CATALOGUE, student_entry
from rsedge.recipe.schema import GateSection, Recipe

AUTO = "auto"


class AutoSettings(Record):
    """What stands beside ``name: auto``: a limit, the target it holds for, and who is in the running."""

    latency_ms: float | None = Field(default=None, gt=0, description="limit")
    speedup: float | None = Field(default=None, gt=0, description="limit as times faster than the teacher, same target")
    target: str | None = Field(default=None, description="one of the recipe's targets; its first where left out")
    candidates: tuple[str, ...] | None = Field(default=None, description="names; all that fit where left out")

    @model_validator(mode="after")
    def _one_limit(self) -> AutoSettings:
        if self.latency_ms is not None and self.speedup is not None:
            raise ValueError("give latency_ms or speedup, not both")
        return self


class Candidate(Record):
    """A student that was built and timed: ms of one inference with its interval, measured or predicted.

    ``predicted_ms`` decides where the interval of a measured latency holds the limit.
    """

    name: str
    params: int
    macs: int
    latency_ms: float
    low_ms: float
    high_ms: float
    provenance: Literal["measured", "predicted"]
    predicted_ms: float

    def meets(self, limit_ms: float) -> bool:
        """Whether it is fast enough; what the measurement cannot tell, the prediction says."""
        return (self.predicted_ms if self.torn(limit_ms) else self.latency_ms) <= limit_ms

    def torn(self, limit_ms: float) -> bool:
        """Whether the measurement cannot tell."""
        return self.provenance == "measured" and self.low_ms <= limit_ms <= self.high_ms


class CandidateRow(Record):
    """What the report says of a candidate: ms of one inference with its interval, and why it was taken or not."""

    student: str
    outcome: Literal["kept", "not kept"]
    latency_ms: float
    low_ms: float
    high_ms: float
    provenance: Literal["measured", "predicted"]
    params: int
    macs: int
    reason: str


def choose(candidates: Sequence[Candidate], limit_ms: float) -> Candidate:
    """The candidate with most parameters (then MACs, then the first by name) that meets ``limit_ms``.

    Raises:
        RequestError: none is; names the fastest.
    """
    if not candidates:
        raise RequestError("student auto: no candidate could be built")
    fitting = [c for c in candidates if c.meets(limit_ms)]
    if not fitting:
        fastest = min(candidates, key=lambda c: (c.latency_ms, c.name))
        raise RequestError(
            f"student auto: no candidate takes at most {limit_ms:.3g} ms; the fastest is {fastest.name} with "
            f"{fastest.provenance} {fastest.latency_ms:.3g} ms. Allow more, or name other candidates"
        )
    return min(fitting, key=lambda c: (-c.params, -c.macs, c.name))


def verdict(candidate: Candidate, chosen: Candidate, limit_ms: float) -> str:
    """Why a candidate was taken or not, in words."""
    if candidate.name == chosen.name:
        return "taken: the most parameters within the limit"
    if not candidate.meets(limit_ms):
        return f"over the limit of {limit_ms:.3g} ms"
    return f"within the limit, but no more parameters than {chosen.name}"


def table(candidates: Sequence[Candidate], chosen: Candidate, limit_ms: float) -> list[CandidateRow]:
    """One row per candidate, the fastest first, for the record and the report."""
    return [
        CandidateRow(
            student=c.name, outcome="kept" if c.name == chosen.name else "not kept", latency_ms=c.latency_ms,
            low_ms=c.low_ms, high_ms=c.high_ms, provenance=c.provenance, params=c.params, macs=c.macs,
            reason=verdict(c, chosen, limit_ms),
        )
        for c in sorted(candidates, key=lambda c: (c.latency_ms, c.name))
    ]  # fmt: skip


def auto_settings(recipe: Recipe) -> AutoSettings:
    """The recipe's options beside ``name: auto``.

    Raises:
        RequestError: unknown or wrong fields.
    """
    try:
        return AutoSettings.model_validate(recipe.student.options)
    except ValidationError as error:
        parts = [f"student.{'.'.join(map(str, e['loc'])) or AUTO}: {e['msg']}" for e in error.errors()]
        raise RequestError("; ".join(parts)) from error


def auto_target(recipe: Recipe) -> str:
    """The target whose latency decides."""
    return auto_settings(recipe).target or recipe.targets[0]


def latency_gates(recipe: Recipe) -> list[GateSection]:
    """The gates that give the limit where the student's section gives none: all on the target's latency."""
    return [g for g in recipe.gates_for(auto_target(recipe)) if g.metric == "latency"]


def candidates_for(recipe: Recipe, task: str, spec: InputSpec) -> list[str]:
    """Names of the students in the running: those named, or all of the catalogue that fit task and input.

    Raises:
        RequestError: one that is named does not fit, or none does.
    """
    named = auto_settings(recipe).candidates
    if named is None:
        found = [name for name in CATALOGUE if not unfit(name, task, spec)]
        if not found:
            raise RequestError(f"student auto: no student of the catalogue is for {task} over {spec.layout}")
        return found
    problems = [f"{name} {why}" for name in named if (why := unfit(name, task, spec))]
    if problems or not named:
        raise RequestError("student.candidates: " + ("; ".join(problems) or "none is named"))
    return list(dict.fromkeys(named))


def unfit(name: str, task: str, spec: InputSpec) -> str:
    """Why a student cannot be tried with its own defaults; empty where it can."""
    entry = student_entry(name)
    if task not in entry.tasks:
        return f"is for {', '.join(entry.tasks)}, not {task}"
    if spec.layout not in entry.layouts:
        return f"takes {' or '.join(entry.layouts)}, not {spec.layout}"
    if spec.is_image and spec.tile % entry.multiple:
        return f"needs tiles that are a multiple of {entry.multiple} pixels, not {spec.tile}"
    if entry.copies:
        return "is made from the teacher, with arguments that only a recipe can give"
    if entry.needs:
        return f"needs {', '.join(entry.needs)}, which has no default"
    return ""


def auto_problems(recipe: Recipe) -> list[str]:
    """What is wrong with the section as far as can be told without the teacher."""
    try:
        settings = auto_settings(recipe)
    except RequestError as error:
        return [str(error)]
    problems = []
    for name in settings.candidates or ():
        if name not in CATALOGUE:
            problems.append(f"student.candidates: '{name}' is unknown{nearest(name, list(CATALOGUE))}")
    if settings.target is not None and settings.target not in recipe.targets:
        problems.append(f"student.target: '{settings.target}' is not in targets ({', '.join(recipe.targets)})")
    elif settings.latency_ms is None and settings.speedup is None and not latency_gates(recipe):
        problems.append(
            f"student auto has no limit: give latency_ms or speedup, or a latency gate for {auto_target(recipe)}"
        )
    return problems
