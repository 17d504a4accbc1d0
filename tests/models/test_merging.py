"""Merged tokens: what must not change does not, twins merge without loss, and every first token has a value at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.layers.masked_blocks import Block as OwnBlock
from rsedge.models.layers.merging import Merged, MergedBlocks, merge, most
from rsedge.models.layers.narrow_attention import follow_widths
from rsedge.models.structure import replace_layers

DIM, HEADS = 24, 3


def narrowed(made: Any) -> nn.Module:
    """A block whose heads have 4 dimensions of queries and keys and 6 of values left, of the 8 that they were built with."""
    made.attn.qkv, made.attn.proj = nn.Linear(DIM, HEADS * (4 + 4 + 6)), nn.Linear(HEADS * 6, DIM)
    follow_widths(made)
    return made  # type: ignore[no-any-return]


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "timm": lambda: TimmBlock(DIM, HEADS, qkv_bias=True, qk_norm=True, init_values=0.5),
    "own": lambda: OwnBlock(DIM, HEADS, fused=False),
    "own, fused": lambda: OwnBlock(DIM, HEADS, fused=True),
    "timm, narrow heads": lambda: narrowed(TimmBlock(DIM, HEADS, qkv_bias=True)),
    "own, narrow heads": lambda: narrowed(OwnBlock(DIM, HEADS, fused=True)),
}


def blocks(kind: str, count: int = 3) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {str(i): MAKERS[kind]().eval() for i in range(count)}


def tokens(count: int = 9, batch: int = 2) -> Tensor:
    return torch.randn(batch, count, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MAKERS)
@torch.no_grad()
def test_merging_nothing_changes_nothing(kind: str) -> None:
    made, x = blocks(kind), tokens()
    assert torch.equal(MergedBlocks(made, (0, 0, 0))(x), nn.Sequential(*made.values())(x))


@pytest.mark.parametrize("kind", MAKERS)
@torch.no_grad()
def test_twins_merge_without_loss(kind: str) -> None:
    """Each token but the first has a twin beside it: merged, weighted by two, they are worth what they were apart."""
    first, rest = tokens(1), tokens(4)
    x = torch.cat([first, rest.repeat_interleave(2, 1)], 1)
    made = blocks(kind)
    whole = nn.Sequential(*made.values())(x)
    for counts in ((1, 0, 0), (3, 0, 0), (4, 0, 0), (0, 4, 0), (0, 0, 2)):
        assert torch.allclose(MergedBlocks(made, counts)(x), whole, atol=2e-5), counts
    # Those that are no twins do not, nor would twins whose number is not counted.
    assert not torch.allclose(MergedBlocks(made, (4, 1, 0))(x), whole, atol=1e-3)
    assert not torch.allclose(nn.Sequential(*made.values())(torch.cat([first, rest], 1))[:, 0], whole[:, 0], atol=1e-3)


@torch.no_grad()
def test_every_first_token_takes_the_value_of_what_it_went_into() -> None:
    """Merging by hand: the pair that is most alike becomes its mean, and both of its places have it."""
    x, keys = tokens(5, 1), torch.eye(5)[None].clone()
    keys[0, 2] = keys[0, 3] + 0.1  # of the even tokens the third is most like the odd one behind it
    now = merge(Merged.of(x), keys, 1, kept=1)
    assert now.tokens.shape == (1, 4, DIM) and now.sizes.sum() == 5
    back, wanted = now.unmerged(), x.clone()
    wanted[:, 2:4] = x[:, 2:4].mean(1, keepdim=True)
    assert torch.allclose(back, wanted, atol=1e-6)
    again = merge(now, now.tokens, 1, kept=1)
    assert again.sizes.sum() == 5 and again.unmerged().shape == x.shape
    # A mean over all that comes out is that of what went in, however often it was merged.
    assert torch.allclose(again.unmerged().mean(1), x.mean(1), atol=1e-6)


@pytest.mark.parametrize(("length", "kept"), [(2, 0), (3, 1), (4, 2), (9, 1), (10, 5), (3, 3)])
@torch.no_grad()
def test_kept_tokens_stay_apart_however_many_are_merged(length: int, kept: int) -> None:
    x = torch.ones(1, length, DIM) + 0.01 * tokens(length, 1)
    count = most(length, kept)
    now = merge(Merged.of(x), x, count, kept)
    assert now.tokens.shape[1] == length - count
    assert torch.allclose(now.unmerged()[:, :kept], x[:, :kept], atol=1e-6)
    assert len({int(i) for i in now.place[0]}) == length - count
    if count:
        taken = [int(i) for i in now.place[0, :kept]]
        assert all(int((now.place == i).sum()) == 1 for i in taken)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "merged", "counts": [1], "kept": 1}, "1 counts are for as many blocks in a row"),
        ({"kind": "merged", "counts": [1, -1], "kept": 1}, "whole numbers from 0 on"),
        ({"kind": "merged", "counts": [1, True], "kept": 1}, "whole numbers from 0 on"),
        ({"kind": "merged", "counts": [1, 1]}, "'kept'"),
        ({"kind": "merged", "counts": [0, 1], "kept": 1}, r"blocks \['1'\] are none that merge tokens"),
        ({"kind": "melted"}, "'melted'"),
        ({"kind": "relu"}, "has weights, it is no activation"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_the_layer(entry: dict[str, object], message: str) -> None:
    net = nn.Sequential(nn.Sequential(OwnBlock(DIM, HEADS, fused=True), nn.Linear(DIM, DIM)))
    with pytest.raises(RequestError, match=f"layer '0' cannot be replaced by .*{message}"):
        replace_layers(net, {"0": entry})
    with pytest.raises(RequestError, match="layer 'body' cannot be replaced"):
        replace_layers(net, {"body": {"kind": "relu"}})


def test_counts_of_another_network_are_refused_where_tokens_run_out() -> None:
    net = nn.Sequential(nn.Sequential(OwnBlock(DIM, HEADS, fused=True), OwnBlock(DIM, HEADS, fused=True)))
    replace_layers(net, {"0": {"kind": "merged", "counts": [4, 3], "kept": 1}})
    with pytest.raises(RequestError, match="3 tokens are to be merged in one block, where 2 can be"):
        net(tokens(9, 1))
