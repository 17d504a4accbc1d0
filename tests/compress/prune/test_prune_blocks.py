"""Heads, hidden units and inner channels: what is removed has no other trace, in every family of teachers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.prune.blocks import block_groups
from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import ChannelGroup, remove_channels
from rsedge.compress.prune.plan import count_params
from rsedge.models.structure import apply_widths, widths_of
from tests.models.reduced import by_family, deployed, reduced_row
from tests.models.small import random_net

ROWS = sorted({names[0] for names in by_family().values()} | {
    "billion-scale-vit-l12x4", "satmae-temporal-vitl", "rvsa-vitaeb-kvdiff", "hypersigma-seg-b", "galileo-nano-image",
    "gair-satellite", "gair-query", "gair-street", "av-resnet1d18-sound", "l-ffca-yolo", "hsigene-decoder", "earthdial",
    "unirs", "text2earth-unet", "metaearth-unet", "range-plus", "csp-fmow", "presto",
})  # fmt: skip
# Its masks of a hundred boxes at 1,024 pixels take minutes and gigabytes; its encoder is SAM's, which is among the quick ones.
LONG = {"rsprompter-anchor-base"}


def outputs(net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found = net.eval()(*inputs)
    return (found,) if isinstance(found, Tensor) else tuple(found)


@torch.no_grad()
def unread(net: nn.Module, groups: list[ChannelGroup], removal: dict[str, list[int]]) -> nn.Module:
    """A copy in which nobody reads the channels: the columns of their readers are 0, or, of queries and keys, they are."""
    silent = copy.deepcopy(net)
    for group in groups:
        read = any(m.side == "in" for m in group.members)
        for m in group.members:
            gone = [i for i, r in zip(m.index, m.root, strict=True) if r in removal.get(group.name, [])]
            layer: Any = silent.get_submodule(m.layer) if gone and m.side in ("in", "out") else None
            if gone and m.side == "in":
                transposed = isinstance(layer, nn.ConvTranspose2d)
                layer.weight[(gone,) if transposed else (slice(None), gone)] = 0.0
            elif gone and m.side == "out" and not read:
                layer.weight[gone] = 0.0
                if layer.bias is not None:
                    layer.bias[gone] = 0.0
    return silent


def normalised_together(net: nn.Module, group: ChannelGroup) -> bool:
    """Whether a layer norm runs over the channels: once some are gone it brings the others to another mean and deviation."""
    both = (m.layer for m in group.members if m.side == "both")
    return any(isinstance(net.get_submodule(layer), nn.LayerNorm) for layer in both)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in ROWS])
def test_removing_equals_not_reading_and_widths_rebuild(name: str) -> None:
    row = reduced_row(name)
    for part in deployed(row, random_net(row)).values():
        inputs = tuple(part.inputs.values())
        groups = find_groups(part.net, inputs if len(inputs) > 1 else inputs[0])
        free = [g for g in groups if not g.blocked and g.channels > 1 and not normalised_together(part.net, g)]
        removal = {g.name: list(range(0, g.channels - 1, 2)) for g in free}
        assert removal, name
        pruned = copy.deepcopy(part.net)
        remove_channels(pruned, groups, removal)
        assert count_params(pruned) < count_params(part.net)
        expected = outputs(unread(part.net, groups, removal), inputs)
        for found, wanted in zip(outputs(pruned, inputs), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)

        again = apply_widths(copy.deepcopy(part.net), widths_of(pruned))
        again.load_state_dict(pruned.state_dict())
        for found, wanted in zip(outputs(again, inputs), outputs(pruned, inputs), strict=True):
            assert torch.equal(found, wanted)


def test_hidden_units_go_with_the_depthwise_convolution_between_their_layers() -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    net = smp.Segformer("mit_b0", encoder_weights=None, in_channels=4, classes=2).eval()
    inputs = (torch.randn(1, 4, 64, 64),)
    groups = [g for g in find_groups(net, inputs[0]) if g.name.endswith(".fc1")]
    assert groups and not any(g.blocked for g in groups)
    removal = {g.name: [0, 3, g.channels - 1] for g in groups}
    expected = outputs(unread(net, groups, removal), inputs)
    remove_channels(net, groups, removal)
    torch.testing.assert_close(outputs(net, inputs), expected, rtol=1e-4, atol=1e-5)


class Mixing(nn.Module):
    """An MLP whose hidden units are mixed on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.mix, self.fc2 = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.mix(self.fc1(x)).relu())  # type: ignore[no-any-return]


def test_hidden_units_that_are_mixed_between_their_layers_stay() -> None:
    (group,) = block_groups(nn.Sequential(Mixing()), set())
    assert group.blocked == "0.mix mixes its hidden units"
