"""Orthogonal updates and the pair of optimizers that is driven as one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.compress.distill.muon import Muon, OptimizerKind, Optimizers, orthogonal


@given(rows=st.integers(8, 40), columns=st.integers(8, 90), seed=st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_singular_values_come_near_one_and_directions_stay(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 1e-3
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = torch.diag(u.mT @ orthogonal(matrix) @ v.mT)
    clear = sizes > 0.05 * sizes.max()
    assert ((kept[clear] > 0.3) & (kept[clear] < 1.4)).all()


def test_the_step_has_the_size_of_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 64, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    Muon([weight], lr=1e-2, weight_decay=0.0).step()
    rms = float(weight.detach().square().mean().sqrt())
    assert 0.5 < rms / (0.2 * 1e-2) < 1.5


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_is_trained_once_and_the_state_comes_back(kind: OptimizerKind) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 3, 1))
    x = torch.randn(2, 6, 12, 12)
    first = [p.detach().clone() for p in net.parameters()]

    def step(optimizers: Optimizers) -> None:
        net(x).square().mean().backward()
        optimizers.step()

    hidden = [p for p in net.parameters() if p.ndim > 1][1:-1]
    ours = Optimizers([net], 1e-2, 1e-2, hidden, kind=kind)
    assert any(isinstance(o, Muon) for o in ours._all) == (kind == "muon")
    step(ours)
    assert all(not torch.equal(a, b) for a, b in zip(first, net.parameters(), strict=True))
    before, kept = [p.detach().clone() for p in net.parameters()], ours.tensors()
    step(ours)
    after = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p, value in zip(net.parameters(), before, strict=True):
            p.copy_(value)
    again = Optimizers([net], 1e-2, 1e-2, hidden, kind=kind)
    again.load(kept)
    step(again)
    assert all(torch.equal(a, b) for a, b in zip(after, net.parameters(), strict=True))
