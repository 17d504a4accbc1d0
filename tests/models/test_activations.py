"""Smooth activations are found by what they give, and what stands in for them travels in structure.json."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from rsedge.models.layers.activations import smooth_activations
from rsedge.models.layers.mlp import QuickGelu
from rsedge.models.structure import load_model, replace_layers, replaced_layers, save_model


class Odd(nn.Module):
    """SiLU under another name, and one that is another function."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gain * x)


def network() -> nn.Sequential:
    shared = nn.GELU("tanh")
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.SiLU(inplace=True), shared, nn.MaxPool2d(2), nn.Sequential(nn.GELU(), QuickGelu()), nn.ReLU(),
        nn.Hardswish(), nn.Sigmoid(), nn.Dropout(), nn.Identity(), nn.Flatten(), Odd(), Odd(3.0), shared,
    )  # fmt: skip


def test_smooth_activations_are_known_by_what_they_give() -> None:
    assert smooth_activations(network().eval()) == ["1", "2", "4.0", "4.1", "11", "13"]


def test_layers_that_take_no_line_of_numbers_are_no_activations() -> None:
    class Keyed(nn.Module):
        def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
            return {}["tokens"]  # type: ignore[return-value]

    class Divided(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / (x.ndim // (x.ndim - 1))

    assert smooth_activations(nn.Sequential(Keyed(), Divided(), nn.GELU())) == ["2"]


def test_stand_ins_compute_what_they_are_called_and_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, x = network(), torch.randn(2, 3, 4, 4)
    entries = {name: {"kind": "relu" if name == "1" else "hardswish"} for name in smooth_activations(whole.eval())}
    net = replace_layers(copy.deepcopy(whole), entries).eval()
    assert replaced_layers(net) == entries and not replaced_layers(whole)
    line = torch.linspace(-4, 4, 9)
    assert torch.equal(net[1](line), torch.relu(line)) and torch.equal(net[13](line), nn.functional.hardswish(line))
    save_model(net, tmp_path, "own", {})
    assert torch.equal(load_model(tmp_path, lambda factory, kwargs: network())(x), net(x))
