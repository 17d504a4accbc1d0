"""Torch-Pruning's own pruner on the teacher (group Taylor importance), distilled as ours is and rounded by NNCF.

Training has the recipe's views, losses and optimizer, as many steps as ours took or as many as the same processor time buys, by the
time of one step of either network, whichever are fewer.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path

import torch_pruning as tp
from contender import OURS, Made
from material import Material, open_material
from store import made_by
from torch import nn

from rsedge.compress.distill.training import distill
from rsedge.compress.prune.plan import count_macs
from rsedge.compress.quantize.ptq import plain_ptq
from rsedge.data.errors import RequestError
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.stages.context import RunContext, report_progress
from rsedge.stages.distill import distill_settings
from rsedge.stages.training import batch_loss, example_input

ROUNDS, MOST, GRADIENTS = 20, 0.95, 4


def make(material: Material, folder: Path, share: float | None = None) -> Made:
    ours = made_by(material.case, material.seed, OURS)
    ctx = open_material(material.case, material.seed, "distill").ctx
    net = copy.deepcopy(ctx.teacher.net).requires_grad_(True)
    whole = count_macs(net, example_input(ctx.spec))
    target = ours.macs if share is None else round(share * whole)
    assert target is not None and ours.steps is not None
    left = prune(net, target, ctx)
    buys = step_seconds(ctx.student("distill"), ctx) / step_seconds(net, ctx)
    steps = max(1, round(ours.steps * min(1.0, buys)))
    # A network that kept half of itself is tuned at the rate of our own recovery, one that kept little learns as a new one.
    trained = train(net, steps, None if share is None else recovery_rate(ctx), folder, ctx)
    return Made(model=str(int8(trained, folder, ctx)), macs=left, steps=steps)


def step_seconds(net: nn.Module, ctx: RunContext) -> float:
    """Processor time of one training step, the least of a few; leaves no gradients behind."""
    took = []
    for number in range(3):
        began = time.process_time()
        batch_loss(net.train(), number, ctx).backward()
        took.append(time.process_time() - began)
    net.zero_grad()
    return min(took)


def prune(net: nn.Module, target: int, ctx: RunContext) -> int:
    """Cuts ``net`` in place until its MACs are at most ``target``; what is left of them.

    Raises:
        RequestError: it cannot be cut so far.
    """
    example, importance = example_input(ctx.spec), tp.importance.GroupTaylorImportance()
    for number in range(GRADIENTS):
        batch_loss(net.train(), number, ctx).backward()
    last = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear) and _outputs(m) == len(ctx.classes)]
    pruner = tp.pruner.BasePruner(
        net.eval(), example, importance, global_pruning=True, pruning_ratio=MOST, max_pruning_ratio=MOST, round_to=8,
        iterative_steps=ROUNDS, ignored_layers=last[-1:],
    )  # fmt: skip
    left = count_macs(net, example)
    for _ in range(ROUNDS):
        if left <= target:
            break
        pruner.step()
        left = count_macs(net, example)
    if left > 1.1 * target:
        raise RequestError(f"Torch-Pruning left {left / 1e6:.0f} million MACs, {target / 1e6:.0f} were asked for")
    return left


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features)


def recovery_rate(ctx: RunContext) -> float | None:
    return None if ctx.recipe.prune is None else ctx.recipe.prune.recovery_lr


def train(net: nn.Module, steps: int, rate: float | None, folder: Path, ctx: RunContext) -> nn.Module:
    base = distill_settings(ctx)
    settings = dataclasses.replace(base, steps=steps, lr=rate or base.lr, ema=min(base.ema, 0.99), taps=(),
                                   validate_every=max(1, steps // 2), checkpoint_every=max(1, steps // 4))  # fmt: skip
    best, _ = distill(
        ctx.source, net, settings, folder, ctx.recipe.seed, ctx.validate, report_progress(ctx, "torch-pruning"),
        statistics=lambda: ctx.teacher_statistics,
    )  # fmt: skip
    return best.cpu().eval()


def int8(net: nn.Module, folder: Path, ctx: RunContext) -> Path:
    onnx = export_onnx(Deployable(net, ctx.spec, ctx.task.output), ctx.spec, ctx.classes, folder / "pruned.onnx")
    path = folder / "model.xml"
    save_openvino(plain_ptq(read_openvino(onnx.path), list(ctx.calibration)), path, ctx.spec, ctx.classes)
    return path
