"""One step of training as distillation has it, for the stages that train on: pruning, and INT8 under rounding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.compress.distill.losses import logit_loss
from rsedge.compress.distill.teacher_outputs import (
    LABELS,
)
from rsedge.compress.distill.training import grid_of
from rsedge.data.bands import InputSpec
from rsedge.models.parts import named
from rsedge.stages.context import RunContext


def batch_loss(module: nn.Module, number: int, ctx: RunContext) -> Tensor:
    """The distillation loss on the batch that (seed, number) draws."""
    section, device = ctx.recipe.distill, next(module.parameters()).device
    x, outputs = training_batch(number, ctx)
    found = named(("logits",), module(x.to(device)))["logits"]
    shares = {"logits": 1 - section.labels, LABELS: section.labels}
    losses = [
        share
        * logit_loss(
            ctx.task.kind, found, outputs[name].to(device), section.temperature, section.balance, grid_of(module)
        )
        for name, share in shares.items()
        if share
    ]
    return torch.stack(losses).sum()


def training_batch(number: int, ctx: RunContext) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch of views that (seed, number) draws, normalised, and what is to be learned of it."""
    size = min(ctx.recipe.distill.batch, ctx.source.count)
    order = np.random.default_rng([ctx.recipe.seed, 9, number]).permutation(ctx.source.count)[:size]
    x, outputs = ctx.source.batch(sorted(order.tolist()))
    return torch.from_numpy(x), {name: torch.from_numpy(np.asarray(values)) for name, values in outputs.items()}


def example_input(spec: InputSpec) -> Tensor:
    return torch.zeros(1, *spec.shape)
