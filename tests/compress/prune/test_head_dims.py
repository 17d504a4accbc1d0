"""Dimensions of attention heads: what goes has no other trace, and scores keep the scale they were trained with."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import ChannelGroup, Removal, remove_channels
from rsedge.compress.prune.pruning import PruneSettings, PruneTarget, prune
from rsedge.compress.prune.turning import turn_heads
from rsedge.data.errors import RequestError
from rsedge.models.structure import load_model, save_model
from tests.compress.prune.attention_nets import IMAGE, NETS, network, vit
from tests.compress.prune.test_prune_latency import hooks, plan


def dims(net: nn.Module, example: Tensor) -> list[ChannelGroup]:
    return [g for g in find_groups(net, example) if g.kind == "head-dims"]


@torch.no_grad()
def silenced(net: nn.Module, groups: list[ChannelGroup], removal: Removal) -> nn.Module:
    """A copy in which the layers that make the dimensions give 0 there."""
    silent = copy.deepcopy(net)
    for group in groups:
        for m in group.members:
            gone = [i for i, r in zip(m.index, m.root, strict=True) if r in removal.get(group.name, [])]
            if m.side == "out":
                layer: Any = silent.get_submodule(m.layer)
                layer.weight[gone], layer.bias[gone] = 0.0, 0.0
    return silent


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_dimensions_go_as_if_they_were_zero(name: str, data: st.DataObject) -> None:
    net, example = network(name)
    x, groups = torch.randn(2, *example.shape[1:]), dims(net, example)
    layers = [n for n, m in net.named_modules() if "attention" in type(m).__name__.lower()]
    assert len(groups) == 2 * len(layers) and not any(g.blocked for g in groups)
    removal = {
        g.name: sorted(data.draw(st.sets(st.integers(0, g.channels - 1), max_size=g.channels - 1))) for g in groups
    }
    cut = copy.deepcopy(net)
    remove_channels(cut, groups, removal)
    with torch.no_grad():
        torch.testing.assert_close(cut(x), silenced(net, groups, removal)(x), atol=1e-4, rtol=1e-4)
    scales = [(a.get_submodule(n).scale, b.get_submodule(n).scale) for n in layers for a, b in [(cut, net)]]
    assert all(after == before for after, before in scales)


@pytest.mark.parametrize("name", NETS)
def test_narrow_heads_are_saved_and_cut_again(name: str, tmp_path: Path) -> None:
    net, example = network(name)
    whole, x = copy.deepcopy(net), torch.randn(1, *example.shape[1:])
    for _ in range(2):  # widths of queries and values differ when the second cut comes
        groups = dims(net, example)
        remove_channels(net, groups, {g.name: [0, 3] if "query" in g.name else [1] for g in groups})
    wanted = net(x)
    save_model(net, tmp_path, "narrow", {})
    again = load_model(tmp_path, lambda *_: whole)
    assert torch.equal(again(x), wanted)
    again.train()(x).square().mean().backward()
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)


@pytest.mark.parametrize("norm", [nn.LayerNorm, functools.partial(nn.LayerNorm, elementwise_affine=False)])
def test_heads_with_normed_queries_keep_their_norms_and_queries(norm: Any) -> None:
    torch.manual_seed(0)
    net = vit(qk_norm=True, norm_layer=norm).eval()
    groups, x = dims(net, IMAGE), torch.randn(2, 4, 32, 32)
    assert {g.blocked for g in groups if "query" in g.name} == {"its q_norm runs over a head's dimensions"}
    removal = {g.name: [0, 5] for g in groups if not g.blocked}
    with torch.no_grad():
        wanted, before = silenced(net, groups, removal)(x), net(x)
        turned = copy.deepcopy(net)
        turn_heads(turned, find_groups(net, IMAGE))
        torch.testing.assert_close(turned(x), before, atol=1e-5, rtol=1e-4)
        remove_channels(net, groups, removal)
        torch.testing.assert_close(net(x), wanted, atol=1e-5, rtol=1e-4)


def test_heads_do_not_lose_all_of_their_dimensions() -> None:
    net, example = network("vit")
    group = dims(net, example)[0]
    with pytest.raises(RequestError, match=r"group 'blocks.0.attn.qkv query width' cannot lose 16 of 16 channels"):
        remove_channels(net, [group], {group.name: range(16)})


def test_a_recipe_says_which_kinds_may_go() -> None:
    net, example = network("vit")
    assert all(
        g.blocked == "kinds has no head-dims"
        for g in find_groups(net, example, kinds=["heads"])
        if g.kind != "heads" and "width" in g.name
    )
    with pytest.raises(ValidationError, match="kinds: blocks alone go with scope: latency"):
        PruneSettings(target=PruneTarget(macs_ratio=0.5), kinds=("blocks",))
    with pytest.raises(ValidationError, match="kinds: blocks alone go with scope: latency"):
        PruneSettings(target=PruneTarget(macs_ratio=0.5), kinds=("blocks", "blocks"))
    with pytest.raises(
        RequestError, match=r"latency_ratio: 0.5 cannot be reached; the least that max_layer_ratio: 0.75"
    ):
        prune(net, example, plan(PruneTarget(latency_ratio=0.5), kinds=("head-dims",)), hooks(net))
    pruned, record = prune(net, example, plan(PruneTarget(latency_ratio=0.93), kinds=("head-dims",)), hooks(net))
    assert record.reached
    widths = {n.rsplit(" ", 2)[1]: r for n, r in record.steps[0].removed.items()}
    assert set(widths) <= {"query", "value"} and set(widths.values()) == {8}
    assert pruned(torch.zeros(2, 4, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("name", NETS)
def test_turned_heads_give_the_same_and_lose_nothing_beyond_their_rank(name: str) -> None:
    net, example = network(name)
    groups, x = dims(net, example), torch.randn(2, *example.shape[1:])
    low_rank(net, groups, 3)
    with torch.no_grad():
        wanted = net(x)
        turn_heads(net, find_groups(net, example))
        torch.testing.assert_close(net(x), wanted, atol=1e-4, rtol=1e-4)
        remove_channels(net, groups, {g.name: range(3, g.channels) for g in groups})
        torch.testing.assert_close(net(x), wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def low_rank(net: nn.Module, groups: list[ChannelGroup], rank: int) -> None:
    """All dimensions of a head become mixtures of ``rank`` ones, where queries and values are made."""
    for group in groups:
        member = group.members[0]
        layer: Any = net.get_submodule(member.layer)
        for head in range(len(member.index) // group.channels):
            at = list(member.index[head * group.channels : (head + 1) * group.channels])
            mix = torch.randn(group.channels, rank) @ torch.randn(rank, group.channels) / group.channels
            layer.weight[at], layer.bias[at] = mix @ layer.weight[at], mix @ layer.bias[at]
