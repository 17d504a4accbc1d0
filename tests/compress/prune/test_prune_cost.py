"""The cost model foretells the MACs of networks with attention after any cut, its products included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import remove_channels
from rsedge.compress.prune.plan import CostModel, count_macs

timm = pytest.importorskip("timm")
NETS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 64, "patch_size": 4, "depth": 2, "embed_dim": 48, "num_heads": 6},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "window_size": 4,
        "depths": (1, 2),
        "embed_dim": 24,
        "num_heads": (3, 6),
    },
    "pvt_v2_b0": {"depths": (1, 1, 1, 1)},
}
EXAMPLE = torch.zeros(1, 3, 64, 64)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(name, num_classes=4, **NETS[name])
    return net.eval()


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_macs_after_a_cut_are_foretold(name: str, data: st.DataObject) -> None:
    net = network(name)
    groups = find_groups(net, EXAMPLE)
    cost = CostModel(net, EXAMPLE, groups, "macs")
    assert cost.cost({}) == count_macs(net, EXAMPLE)
    free = [g for g in groups if not g.blocked and g.channels > 1]
    counts = {g.name: data.draw(st.integers(0, g.channels - 1)) for g in free}
    remove_channels(net, groups, {n: list(range(count)) for n, count in counts.items() if count})
    assert cost.cost(counts) == pytest.approx(count_macs(net, EXAMPLE), rel=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_head_costs_its_products_too(name: str) -> None:
    net = network(name)
    groups = find_groups(net, EXAMPLE)
    cost = CostModel(net, EXAMPLE, groups, "macs")
    heads = next(g for g in groups if "attention heads" in g.through)
    saved = cost.cost({}) - cost.cost({heads.name: 1})
    tokens = 256
    # Queries, keys, values and the projection: four products of 48 or 24 inputs with the head's width, for every token.
    width, per_token = (48, tokens) if name.startswith("vit") else (24, 16)
    rows = tokens + 1 if name.startswith("vit") else tokens
    products = 2 * rows * (per_token + 1 if name.startswith("vit") else per_token) * 8
    assert saved == 4 * rows * width * 8 + products
    assert products / saved > 0.1
