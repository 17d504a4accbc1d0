"""The stage ``teacher``: the teacher's parts run together on every role, and what each was given is kept."""

from __future__ import annotations

import numpy as np

from rsedge.cache.stage import StageContext
from rsedge.data.errors import RequestError
from rsedge.data.metrics.figures import record_of
from rsedge.models.outside.loading import weight_count
from rsedge.results.parts import PartsTeacher, Recorded
from rsedge.runtimes.session import Arrays
from rsedge.stages.parts.context import (
    GROUP,
    OUT,
    ROLES,
    PartsContext,
    Role,
    TorchPart,
    part_file,
    save_rows,
    whole_file,
)

Call = tuple[Arrays, Arrays]


def teacher_stage(context: StageContext, ctx: PartsContext) -> PartsTeacher:
    """Writes what the whole gives and what each part is given, role by role; figures of the teacher on selection and test.

    Raises:
        RequestError: the parts do not go together, or the teacher gives NaN or infinity.
    """
    kept: dict[str, dict[str, int]] = {name: {} for name in ctx.teachers}
    calls = dict.fromkeys(ctx.teachers, 0)
    metrics = {}
    total = 0
    for role in ROLES:
        samples, groups = ctx.samples(role)
        answers, seen = _run(ctx, role, samples)
        total += len(samples)
        save_rows(context.folder / whole_file(role).name, answers)
        for name, by_sample in seen.items():
            calls[name] += sum(map(len, by_sample))
            rows = [(i, call) for i, made in enumerate(by_sample) for call in evenly(made, ctx.recipe.data.calls)]
            kept[name][role] = len(rows)
            save_rows(
                context.folder / part_file(name, role).name,
                [given | {f"{OUT}{n}": v for n, v in found.items()} for _, (given, found) in rows],
                **{GROUP: np.array([groups[i] for i, _ in rows])},
            )
        if role != "train":
            metrics[role] = record_of(*ctx.whole.comparisons(answers, answers, groups))
    parts = {
        name: Recorded(samples=kept[name], calls=calls[name] / total, params=weight_count(own.part.net))
        for name, own in ctx.teachers.items()
    }
    return PartsTeacher(parts=parts, metrics=metrics["test"], selection=metrics["selection"])


def _run(ctx: PartsContext, role: Role, samples: list[Arrays]) -> tuple[list[Arrays], dict[str, list[list[Call]]]]:
    """What the whole gives for each sample, and the calls of every part by sample."""
    answers = []
    seen: dict[str, list[list[Call]]] = {name: [] for name in ctx.teachers}
    for i, sample in enumerate(samples):
        ctx.reporter.step(f"teacher, {role}", i, len(samples))
        parts = {name: TorchPart(own.deployed, []) for name, own in ctx.teachers.items()}
        try:
            found = ctx.whole.run(parts, sample)
        except RequestError as error:
            raise RequestError(f"data.samples: sample {i} of {role}: {error}") from error
        if odd := [name for name, value in found.items() if not np.isfinite(value).all()]:
            raise RequestError(
                f"data.samples: the teacher gives NaN or infinity in '{odd[0]}' for sample {i} of {role}"
            )
        answers.append(found)
        for name, part in parts.items():
            seen[name].append(part.seen or [])
    ctx.reporter.clear()
    return answers, seen


def evenly(calls: list[Call], most: int) -> list[Call]:
    """At most so many of a sample's calls, at even distances, the first and the last among them."""
    if len(calls) <= most:
        return calls
    return [calls[i] for i in np.unique(np.linspace(0, len(calls) - 1, most).round().astype(int))]
