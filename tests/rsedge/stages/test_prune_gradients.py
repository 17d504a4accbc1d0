"""Gradients that Taylor importance ranks by, also where the student is a copy of its teacher."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.distill.objective import Objective
from rsedge.stages import prune as stage


@pytest.mark.parametrize("kind", ["embedding", "classes"])
def test_a_copy_of_the_teacher_has_gradients(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    x = torch.randn(6, 4)
    outputs = {"logits": copy.deepcopy(net)(x).detach()}
    asked: list[Tensor] = []

    def loss(module: nn.Module, x: Tensor, outputs: dict[str, Tensor], ctx: Any, wanted: Objective) -> Tensor:
        asked.append(outputs["logits"])
        return (module(x) - outputs["logits"]).square().mean()

    monkeypatch.setattr(stage, "training_batch", lambda number, ctx: (x, outputs))
    monkeypatch.setattr(stage, "objective", lambda ctx: Objective(kind))
    monkeypatch.setattr(stage, "loss_on", loss)
    ctx: Any = SimpleNamespace(recipe=SimpleNamespace(seed=0))
    stage._gradients(net, 0, ctx)
    assert len(asked) == 2 and torch.equal(asked[0], outputs["logits"])
    assert 0 < float((asked[1] - asked[0]).std()) < 0.2 * float(asked[0].std())
    assert all(bool(p.grad.any()) for p in net.parameters() if p.grad is not None)
    outputs["logits"] = outputs["logits"] + 1.0  # at some distance it is asked once
    stage._gradients(net, 0, ctx)
    assert len(asked) == 3
