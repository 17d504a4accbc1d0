"""What was linear in the channels left is found again; what cannot be fitted stays; the pruner asks for inputs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import remove_channels
from rsedge.compress.prune.plan import count_macs
from rsedge.compress.prune.pruning import LatencyEstimate, PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.compress.prune.refit import refit
from rsedge.data.errors import RequestError
from tests.compress.prune.estimates import by_estimates


class Redundant(nn.Module):
    """Hidden channels 4 to 7 are sums of the first four, so that they can go without loss."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.first, self.second, self.third = layers
        with torch.no_grad():
            for layer in (self.first, self.second):
                mixing = torch.rand(4, 4)
                weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
                weight[4:] = torch.tensordot(mixing, weight[:4], 1)
                bias[4:] = mixing @ bias[:4]

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))  # type: ignore[no-any-return]


def linear() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Redundant([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)]), torch.randn(256, 6)


def convolution(padding: str | int, stride: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(5, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride, padding), nn.Conv2d(8, 3, 1)]
    return Redundant(layers), torch.randn(8, 5, 12, 12)


CASES: list[Any] = [linear(), convolution(1, 1), convolution("same", 1), convolution("valid", 1), convolution(1, 2)]


@pytest.mark.parametrize(("net", "x"), CASES, ids=["linear", "padding", "same", "valid", "stride"])
def test_channels_that_others_stand_for_go_without_loss(net: nn.Module, x: Tensor) -> None:
    cut = copy.deepcopy(net)
    groups = find_groups(cut, x[:1])
    removal = {"first": [4, 5, 6, 7], "second": [4, 5, 6, 7]}
    remove_channels(cut, groups, removal)
    with torch.no_grad():
        wanted, lost = net(x), (cut(x) - net(x)).abs().max()
        assert refit(cut, net, groups, removal, [x[:128], x[128:]] if x.ndim == 2 else [x]) == ["second", "third"]
        found = (cut(x) - wanted).abs().max()
    assert found < 0.01 * lost, (found, lost)


def test_nothing_is_fitted_where_nothing_was_cut() -> None:
    net, x = linear()
    cut = copy.deepcopy(net)
    assert refit(cut, net, find_groups(cut, x[:1]), {}, [x]) == []
    for own, before in zip(cut.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(own, before, rtol=0, atol=0)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    net, x = linear()
    cut, removal = copy.deepcopy(net), {"first": [4, 5]}
    groups = find_groups(cut, x[:1])
    remove_channels(cut, groups, removal)
    with pytest.raises(RequestError, match="NaN"):
        refit(cut, net, groups, removal, [torch.full_like(x, torch.nan)])


def test_a_cut_for_size_stays_though_latency_does_not_fall() -> None:
    net, x = linear()
    ms = LatencyEstimate(ms=1, low=1, high=1, provenance="predicted")
    hooks = PruneHooks(
        score=lambda _: 0.0, latency=lambda _: ms, compare=by_estimates(lambda _: ms), recover=lambda *_: None
    )
    outcomes = {}
    for target in ("params_ratio", "macs_ratio"):
        settings = PruneSettings(target=PruneTarget(**{target: 0.6}), steps=1, importance="magnitude", round_to=1)
        outcomes[target] = prune(net, x[:1], settings, hooks)[1].outcome
    assert outcomes == {"params_ratio": "applied", "macs_ratio": "rejected"}


class Fixed(nn.Module):
    """Its width is written into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.first(x)
        if not torch.jit.is_tracing() and self.first.weight.shape[0] != 16:
            raise ValueError("made for 16 channels")
        return self.second(wide)  # type: ignore[no-any-return]


def test_a_network_that_does_not_run_once_it_is_cut_is_told_of() -> None:
    ms = LatencyEstimate(ms=1, low=1, high=1, provenance="predicted")
    hooks = PruneHooks(
        score=lambda _: 0.0, latency=lambda _: ms, compare=by_estimates(lambda _: ms), recover=lambda *_: None
    )
    settings = PruneSettings(target=PruneTarget(params_ratio=0.6), steps=1, importance="magnitude", round_to=1)
    with pytest.raises(
        RequestError, match="does not run without some channels of first: made for 16 channels; name the layers"
    ):
        prune(Fixed(), torch.randn(1, 3, 8, 8), settings, hooks)


def pruned(**changes: Any) -> float:
    """Distance to the unpruned network after one step without recovery."""
    net, x = linear()

    def latency(module: nn.Module) -> LatencyEstimate:
        ms = 0.1 + count_macs(module, x[:1]) / 1e3
        return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="predicted")

    def score(module: nn.Module) -> float:
        with torch.no_grad():
            return -float((module(x) - net(x)).square().mean())

    settings = PruneSettings(
        target=PruneTarget(macs_ratio=0.5), steps=1, importance="magnitude", round_to=1, max_drop=100.0, **changes
    )
    hooks = PruneHooks(
        score=score,
        latency=latency,
        compare=by_estimates(latency),
        recover=lambda *_: None,
        inputs=lambda i: x[i * 128 : i * 128 + 128],
    )
    cut, record = prune(net, x[:1], settings, hooks)
    assert record.outcome == "applied"
    return -score(cut)


def test_a_step_of_the_pruner_starts_nearer() -> None:
    assert pruned(refit_batches=2) < 0.5 * pruned(refit_batches=0)


def test_without_inputs_it_is_refused() -> None:
    net, x = linear()
    ms = LatencyEstimate(ms=1, low=1, high=1, provenance="predicted")
    settings = PruneSettings(target=PruneTarget(macs_ratio=0.5), importance="magnitude", round_to=1, refit_batches=1)
    hooks = PruneHooks(
        score=lambda _: 0.0, latency=lambda _: ms, compare=by_estimates(lambda _: ms), recover=lambda *_: None
    )
    with pytest.raises(RequestError, match="refit_batches"):
        prune(net, x[:1], settings, hooks)
