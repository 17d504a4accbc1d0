"""The width between blocks: all that a channel runs through goes with it, whatever the family, and what is not known stays."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import ChannelGroup, Removal, remove_channels
from rsedge.compress.prune.plan import CostModel, count_params
from rsedge.compress.prune.pruning import PruneTarget, prune
from rsedge.data.errors import RequestError
from rsedge.export.onnx.writing import trace
from rsedge.models.families.presto import Presto
from rsedge.models.structure import load_model, save_model, widths_of
from rsedge.runtimes.openvino.core import settings as cpu_settings
from rsedge.runtimes.openvino.core import shared_core
from tests.compress.prune.attention_nets import IMAGE, Nets, vit
from tests.compress.prune.attention_nets import NETS as SMALL
from tests.compress.prune.attention_nets import network as small_network
from tests.compress.prune.test_prune import hooks, plan


def whole_vit(**changes: Any) -> nn.Module:
    """Class token, registers, layer scales and a norm in front."""
    return vit(**{"reg_tokens": 2, "init_values": 0.1, "pre_norm": True, **changes})


NETS: Nets = {**SMALL, "vit": (whole_vit, IMAGE), "presto": (lambda: Presto(16, 2, 2, classes=2), torch.rand(1, 3, 20))}


def network(name: str) -> tuple[nn.Module, Tensor]:
    return small_network(name, NETS)


def in_openvino(net: nn.Module, x: Tensor) -> Tensor:
    """What OpenVINO gives of a network's ONNX graph."""
    core, graph = shared_core(), trace(net, (x,), ("x",), ("y",), 18)
    model = core.read_model(graph.SerializeToString(), b"")
    (found,) = core.compile_model(model, "CPU", cpu_settings("CPU", "f32", 1))(x.numpy()).values()
    return torch.from_numpy(found)


def streams(net: nn.Module, example: Tensor) -> list[ChannelGroup]:
    return [g for g in find_groups(net, example) if g.kind == "width"]


@torch.no_grad()
def without_channels(net: nn.Module, groups: list[ChannelGroup], removal: Removal) -> nn.Module:
    """A copy of full width in which the channels are 0 throughout: written as 0, and layer norms run over the others alone."""
    silent = copy.deepcopy(net)
    for group in groups:
        for m in group.members:
            gone = [i for i, r in zip(m.index, m.root, strict=True) if r in removal[group.name]]
            if m.side == "out":
                layer: Any = silent.get_submodule(m.layer)
                layer.weight[gone] = 0.0
                if layer.bias is not None:
                    layer.bias[gone] = 0.0
            elif m.side == "param":
                silent.get_parameter(m.layer).index_fill_(m.dim, torch.tensor(gone, dtype=torch.long), 0.0)
            elif m.side == "both":
                norm: Any = silent.get_submodule(m.layer)
                norm.register_forward_hook(over_the_others([i for i in m.index if i not in gone]))
    return silent


def over_the_others(kept: list[int]) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(norm: Any, given: tuple[Tensor, ...], _: Tensor) -> Tensor:
        out = torch.zeros_like(given[0])
        out[..., kept] = F.layer_norm(given[0][..., kept], (len(kept),), norm.weight[kept], norm.bias[kept], norm.eps)
        return out

    return hook


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_channels_go_as_if_they_had_never_been(name: str, data: st.DataObject) -> None:
    net, example = network(name)
    groups = streams(net, example)
    assert groups and not any(g.blocked for g in groups)
    removal = {
        g.name: sorted(data.draw(st.sets(st.integers(0, g.channels - 1), max_size=g.channels - 2))) for g in groups
    }
    x, cut = torch.rand(2, *example.shape[1:]), copy.deepcopy(net)
    remove_channels(cut, groups, removal)
    with torch.no_grad():
        torch.testing.assert_close(cut(x), without_channels(net, groups, removal)(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit", "swin", "presto"])
def test_cuts_of_every_kind_are_foretold_saved_and_run_elsewhere(name: str, tmp_path: Path) -> None:
    net, example = network(name)
    whole, groups = copy.deepcopy(net), [g for g in find_groups(net, example) if not g.blocked]
    assert {g.kind for g in groups} == {"heads", "head-dims", "units", "width"}
    costs = CostModel(net, example, groups, "params")
    removal = {g.name: list(range(g.channels // 2)) for g in groups}
    remove_channels(net, groups, removal)
    foretold = costs.cost({n: len(r) for n, r in removal.items()})
    # Presto's codes lie side by side in the stream: which of them goes depends on the channels that do.
    assert foretold == pytest.approx(count_params(net), rel=0.1 if name == "presto" else 1e-6)
    save_model(net, tmp_path, "narrow", {})
    again, x = load_model(tmp_path, lambda *_: whole), torch.rand(1, *example.shape[1:])
    assert torch.equal(again(x), net(x))
    torch.testing.assert_close(in_openvino(again, x), net(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_classes": 0}, "its channels are the model's output"),
        ({"global_pool": "map"}, "attn_pool.latent is not known to the pruner"),
        ({"norm_layer": nn.RMSNorm}, "norm_pre is not known to the pruner"),
        ({"norm_layer": nn.RMSNorm, "pre_norm": False, "global_pool": "avg"}, "fc_norm is not known to the pruner"),
        (
            {"norm_layer": functools.partial(nn.LayerNorm, elementwise_affine=False)},
            "norm_pre is not known to the pruner",
        ),
    ],
)
def test_a_width_that_something_else_depends_on_stays_and_says_why(changes: dict[str, Any], why: str) -> None:
    (group,) = streams(whole_vit(**changes), IMAGE)
    assert group.blocked == why
    with pytest.raises(RequestError, match=r"group 'patch_embed.proj' cannot lose 1 of 48 channels"):
        remove_channels(whole_vit(**changes), [group], {group.name: [0]})


def test_a_width_of_unknown_layers_stays() -> None:
    net: Any = whole_vit()
    net.blocks[1].extra = nn.Linear(48, 48)
    (group,) = streams(net, IMAGE)
    assert group.blocked == "blocks.1.extra is not known to the pruner"


def test_a_width_between_blocks_with_other_norms_stays() -> None:
    net: Any = whole_vit()
    net.blocks[1].norm2 = nn.RMSNorm(48)
    (group,) = streams(net, IMAGE)
    assert group.blocked == "blocks.1.norm2 is not known to the pruner"


def test_pruning_narrows_the_width_to_multiples_and_never_to_nothing() -> None:
    net, example = network("vit")
    group = streams(net, example)[0]
    with pytest.raises(RequestError, match="cannot lose 48 of 48 channels"):
        remove_channels(net, [group], {group.name: range(48)})
    chosen = plan(PruneTarget(macs_ratio=0.5), kinds=("width",), round_to=16, steps=1)
    with pytest.raises(
        RequestError, match=r"macs_ratio: 0.2 cannot be reached; .* round_to: 16 and ignored leave is 0\.\d+"
    ):
        prune(net, example, chosen.model_copy(update={"target": PruneTarget(macs_ratio=0.2)}), hooks())
    pruned, record = prune(net, example, chosen, hooks())
    assert record.reached and widths_of(pruned)["norm"]["shape"] == [16]
    kept = plan(PruneTarget(macs_ratio=0.9), kinds=("width",), ignored=("blocks.0.mlp.fc2",))
    with pytest.raises(RequestError, match=r"patch_embed.proj: 48 channels, stays: ignored by the recipe"):
        prune(net, example, kept, hooks())
