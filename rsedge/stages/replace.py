"""The replace stage: faster activations and merged tokens, each measured on every target and judged on selection."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.compress.replace.replacing import ReplaceHooks, ReplaceRecord, ReplaceSettings, replace
from rsedge.data.files import sha256_of
from rsedge.models.structure import replace_layers, replaced_layers, save_model
from rsedge.recipe.steps import ReplaceSection
from rsedge.results.records import Replace
from rsedge.stages.context import RunContext
from rsedge.stages.latency import TargetLatency
from rsedge.stages.outputs import weights_of
from rsedge.stages.recovery import recover
from rsedge.stages.training import example_input

STEP = "replace"


def replace_stage(context: StageContext, ctx: RunContext) -> Replace:
    """Replaces what pays of the student as the stage before left it; writes ``model/`` and returns the record."""
    section, trained = ctx.recipe.replace, ctx.recipe.trained
    assert section is not None
    student = ctx.student(trained[trained.index(context.name) - 1])
    settings = ReplaceSettings(**section.model_dump(exclude={"recovery_steps", "recovery_lr"}))
    hooks = ReplaceHooks(
        score=lambda module: ctx.validate(module)["score"],
        standing=ctx.standing,
        compare={target: TargetLatency(ctx, target).comparison(None) for target in ctx.recipe.targets},
        recover=_recovery(section, context.resume, ctx) if section.recovery_steps else None,
        progress=lambda text: ctx.reporter.note(f"  {text}"),
    )
    net, record = replace(student, example_input(ctx.spec), settings, hooks)
    save_model(net, context.folder / weights_of(context.name).name, ctx.student_name, ctx.build()[1])
    return Replace(record=record, params=count_params(net), macs=count_macs(net, example_input(ctx.spec)))


def _recovery(section: ReplaceSection, folder: Path, ctx: RunContext) -> Callable[[nn.Module, int], None]:
    """What trains a replacement, in a folder of its own: trials go by time, so after a kill one of this number may be another."""

    def run(module: nn.Module, number: int) -> None:
        recover(module, section, STEP, number, folder / sha256_of(replaced_layers(module))[:16], ctx)

    return run


def replaced_alike(net: nn.Module, record: ReplaceRecord, ctx: RunContext, workdir: Path) -> nn.Module:
    """A copy of a student with the replacements that another one, built alike, came out with, trained after them if that was."""
    section, entries = ctx.recipe.replace, record.replaced
    assert section is not None
    made: Any = replace_layers(copy.deepcopy(net), entries)
    if record.trained:
        recover(made, section, STEP, 1, workdir, ctx)
    return made.eval()  # type: ignore[no-any-return]
