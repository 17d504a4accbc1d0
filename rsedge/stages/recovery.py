"""Distillation after a change to the student, for the stages that change it: pruning and replacing."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from torch import nn

from rsedge.compress.distill.training import distill
from rsedge.recipe.steps import PruneSection, ReplaceSection
from rsedge.stages.context import RunContext, report_progress
from rsedge.stages.distill import distill_settings

LONGEST_EMA = 0.99
"""So few steps are over before a longer mean has left the start behind."""


def recover(
    module: nn.Module, section: PruneSection | ReplaceSection, name: str, number: int, folder: Path, ctx: RunContext
) -> None:
    """Trains a student in place for the section's ``recovery_steps``; goes on in ``folder`` after a kill.

    Args:
        name: of the step, for the progress.
        number: of the change; its draws of views are its own.
    """
    steps = section.recovery_steps
    if not steps:
        return
    base = distill_settings(ctx)
    settings = dataclasses.replace(
        base, steps=steps, lr=section.recovery_lr, ema=min(base.ema, LONGEST_EMA), taps=(), validate_every=steps
    )
    workdir = folder / f"recovery-{number}"
    workdir.mkdir(parents=True, exist_ok=True)
    best, _ = distill(
        ctx.source,
        copy.deepcopy(module),
        settings,
        workdir,
        ctx.recipe.seed + number,
        None,
        report_progress(ctx, f"{name} {number}: recovery"),
        statistics=lambda: ctx.teacher_statistics,
        trust=ctx.trust if settings.hard_views else None,
    )
    module.load_state_dict(best.cpu().state_dict())
