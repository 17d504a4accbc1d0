"""Batch norms after a cut: their statistics are those of what they are given now, before anything is judged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.prune.norms import retake_statistics
from rsedge.compress.prune.pruning import LatencyEstimate, LatencyRatio, PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.models.students import build_student

UNET = {"bands": 4, "classes": 3, "stem": 16, "encoder": [24, 32], "blocks": [1, 1], "decoder": [32, 16]}


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16, momentum=0.3), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16),
        nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(16, 3, 1),
    )  # fmt: skip


def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_student("slim-unet", UNET)


def batch(number: int) -> Tensor:
    return 2 + torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(number))


def test_statistics_are_means_over_the_batches_and_nothing_else_changes() -> None:
    net = cnn().eval()
    before = {n: p.clone() for n, p in net.named_parameters()}
    assert retake_statistics(net, [batch(0), batch(1)]) == 2
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == 0.3 and not any(m.training for m in net.modules())
    given = [net[0](batch(i)).detach() for i in (0, 1)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in given]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in given]).mean(0))
    assert all(torch.equal(before[n], p) for n, p in net.named_parameters())


def test_a_network_without_norms_is_not_run() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.BatchNorm2d(8, track_running_stats=False))
    assert retake_statistics(net, iter([])) == 0


@pytest.mark.parametrize("build", [cnn, unet])
def test_a_cut_is_judged_with_statistics_of_its_own(build: type[nn.Module]) -> None:
    """Every norm of the candidate gives what it has seen mean 0 and deviation 1, before latency and score are asked for."""
    net = build()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
    retake_statistics(net, [batch(i) for i in range(4)])
    whole = copy.deepcopy(net)

    def off(module: nn.Module) -> float:
        """How far the mean input of any norm is from the one it keeps, in the deviations it keeps."""
        found: list[float] = []

        def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            found.append(float(((inputs[0].mean((0, 2, 3)) - mean) / variance.sqrt()).abs().max()))

        handles = [m.register_forward_pre_hook(hook) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            module(batch(0))
        for handle in handles:
            handle.remove()
        return max(found)

    seen: list[float] = []

    def compare(_before: nn.Module, candidate: nn.Module) -> LatencyRatio:
        seen.append(off(candidate))
        return LatencyRatio(value=0.8, low=0.8, high=0.8, planned=0.8, provenance="predicted")

    figure = LatencyEstimate(ms=1.0, low=1.0, high=1.0, provenance="predicted")
    for batches in (8, 0):
        settings = PruneSettings(
            target=PruneTarget(macs_ratio=0.5), steps=1, importance="magnitude", norm_batches=batches
        )
        hooks = PruneHooks(lambda _: 1.0, lambda _: figure, compare, lambda *_: None, inputs=batch)
        prune(whole, batch(0)[:1], settings, hooks)
    anew, kept = seen
    assert anew < 0.5 < kept
