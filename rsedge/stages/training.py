"""One step of training as distillation has it, for the stages that train on: pruning, and INT8 under rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.compress.distill.losses import LossChoice
from rsedge.compress.distill.objective import Objective
from rsedge.compress.distill.teacher_outputs import LABELS
from rsedge.compress.distill.training import grid_of
from rsedge.data.bands import InputSpec
from rsedge.models.parts import named
from rsedge.recipe.steps import LossSection
from rsedge.stages.context import RunContext


def batch_loss(module: nn.Module, number: int, ctx: RunContext) -> Tensor:
    """The distillation loss on the batch that (seed, number) draws."""
    return loss_on(module, *training_batch(number, ctx), ctx, objective(ctx))


def loss_on(module: nn.Module, x: Tensor, outputs: Mapping[str, Tensor], ctx: RunContext, wanted: Objective) -> Tensor:
    """A loss on a batch and what is to be learned of it."""
    device = next(module.parameters()).device
    outputs = {name: values.to(device) for name, values in outputs.items()}
    found = named(("logits",), module(x.to(device)))["logits"]
    statistics = ctx.teacher_statistics["logits"] if wanted.scaled(found.ndim) else None
    return wanted(found, outputs["logits"], outputs.get(LABELS), statistics, grid_of(module))


def objective(ctx: RunContext) -> Objective:
    """What the recipe's student is trained by."""
    section = ctx.recipe.distill
    losses = tuple(choice(loss) for loss in section.loss)
    return Objective(ctx.task.kind, losses, section.temperature, section.balance, section.labels)


def choice(section: LossSection) -> LossChoice:
    return LossChoice(section.name, section.weight, section.options)


def training_batch(number: int, ctx: RunContext) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch of views that (seed, number) draws, normalised, and what is to be learned of it."""
    size = min(ctx.recipe.distill.batch, ctx.source.count)
    order = np.random.default_rng([ctx.recipe.seed, 9, number]).permutation(ctx.source.count)[:size]
    x, outputs = ctx.source.batch(sorted(order.tolist()))
    return torch.from_numpy(x), {name: torch.from_numpy(np.asarray(values)) for name, values in outputs.items()}


def selection_batch(number: int, ctx: RunContext) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of what is held out for selection, normalised, and what the teacher gives there; the same number draws the same."""
    inputs = ctx.task.held_out("selection").inputs
    size = min(ctx.recipe.distill.batch, len(inputs))
    order = np.random.default_rng([ctx.recipe.seed, 10]).permutation(len(inputs))
    dn = inputs[order.take(range(number * size, (number + 1) * size), mode="wrap")]
    outputs = {name: torch.from_numpy(values) for name, values in ctx.training_targets(dn).items()}
    return torch.from_numpy(ctx.read(dn)), outputs


def example_input(spec: InputSpec) -> Tensor:
    return torch.zeros(1, *spec.shape)
