"""The prune stage: channels go where the network gets faster, step by step, each judged on selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.prune.pruning import PruneHooks, PruneRecord, PruneSettings, PruneTarget, prune
from rsedge.models.structure import save_model
from rsedge.results.records import Prune
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import weights_of
from rsedge.stages.recovery import recover
from rsedge.stages.training import example_input, loss_on, objective, selection_batch, training_batch

NOISE = 0.1
"""Of the spread of the teacher's outputs, where the student is at no distance from them."""


def prune_stage(context: StageContext, ctx: RunContext) -> Prune:
    """Prunes the distilled student; writes ``model/`` and returns the record.

    Raises:
        RequestError: nothing can be pruned.
    """
    kwargs = ctx.build()[1]
    pruned, record = pruned_student(ctx, ctx.student("distill"), kwargs, context.resume)
    save_model(pruned, context.folder / weights_of(context.name).name, ctx.student_name, kwargs)
    return Prune(record=record)


def pruned_student(
    ctx: RunContext, student: nn.Module, kwargs: dict[str, Any], workdir: Path
) -> tuple[nn.Module, PruneRecord]:
    """The recipe's pruning of a student that was built with ``kwargs``; goes on in ``workdir`` after a kill.

    Raises:
        RequestError: nothing can be pruned.
    """
    from rsedge.stages.latency import TargetLatency

    section = ctx.recipe.prune
    assert section is not None
    latency = TargetLatency(ctx, section.latency_on)
    target = PruneTarget(**section.target.model_dump())
    values = section.model_dump(exclude={"target", "recovery_steps", "recovery_lr", "latency_on"})
    settings = PruneSettings(**values, target=target, seed=ctx.recipe.seed)
    hooks = PruneHooks(
        score=lambda module: ctx.validate(module)["score"],
        standing=ctx.standing,
        latency=latency.estimate,
        compare=latency.comparison(1 - section.min_gain),
        recover=lambda module, number: recover(module, section, "prune step", number, workdir, ctx),
        gradients=lambda module, number: _gradients(module, number, ctx),
        loss=lambda number: _loss(number, ctx),
        time_layers=latency.layers,
        inputs=lambda number: training_batch(number, ctx)[0],
        progress=lambda text: ctx.reporter.note(f"  {text}"),
    )
    return prune(
        student, example_input(ctx.spec), settings, hooks, workdir=workdir, factory=ctx.student_name, kwargs=kwargs
    )


def _loss(number: int, ctx: RunContext) -> Callable[[nn.Module], float]:
    """The distance to the teacher on a batch of selection, where no view has a label."""
    x, outputs = selection_batch(number, ctx)
    wanted = dataclasses.replace(objective(ctx), labels=0.0)

    @torch.no_grad()
    def loss(module: nn.Module) -> float:
        return float(loss_on(module, x, outputs, ctx, wanted))

    return loss


def _gradients(module: nn.Module, number: int, ctx: RunContext) -> None:
    """Gradients of the loss on a batch.

    A network that gives exactly what it is asked for, as a copy of its teacher does, has none, and every channel would look as
    dispensable as any other: it is asked for the outputs with noise of a tenth of their spread.
    """
    x, outputs = training_batch(number, ctx)
    loss_on(module, x, outputs, ctx, objective(ctx)).backward()  # type: ignore[no-untyped-call]
    if any(p.grad is not None and bool(p.grad.any()) for p in module.parameters()):
        return
    given = outputs["logits"].float()
    noise = torch.randn(given.shape, generator=torch.Generator().manual_seed(ctx.recipe.seed + number))
    asked = {**outputs, "logits": given + NOISE * given.std() * noise}
    loss_on(module, x, asked, ctx, objective(ctx)).backward()  # type: ignore[no-untyped-call]
