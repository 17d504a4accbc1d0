"""UPerNet's head against transformers' with the same weights; pooling by products against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rsedge.models.families.rvsa_upernet import RVSAUperNet
from rsedge.models.layers.pooling import pooling
from rsedge.models.layers.upernet import UPerHead
from rsedge.models.zoo import teacher_row
from tests.conftest import Results
from tests.models.small import random_net
from tests.models.small_parts import small_row


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [4, 7, 16, 28])
def test_the_head_is_that_of_transformers(size: int, results: Results) -> None:
    hf = pytest.importorskip("transformers")
    from transformers.models.upernet.modeling_upernet import UperNetHead

    channels = [12, 20, 20, 24]
    edges = [8 * size, 4 * size, 2 * size + 1, size]  # 50 pixels of a map are 25 of the next, 9 are 4
    torch.manual_seed(0)
    ours = UPerHead(channels, size, 5, 16).eval()
    for parameter in (*ours.parameters(), *(b for n, b in ours.named_buffers() if "running" in n)):
        parameter.data.copy_(torch.rand(parameter.shape) * 0.3 + 0.02)
    other = UperNetHead(
        hf.UperNetConfig(backbone_config=hf.ResNetConfig(), hidden_size=16, num_labels=5), channels
    ).eval()
    names = {".bn.": ".batch_norm.", "conv_seg.": "classifier."}
    state = ours.state_dict()
    for old, new in names.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    other.load_state_dict(state)
    maps = [noise(2, c, e, e, seed=c) for c, e in zip(channels, edges, strict=True)]
    with torch.no_grad():
        found, expected = ours(maps), other(maps)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    results.setdefault("family rvsa_upernet", {})["library"] = "transformers (head)"


@pytest.mark.parametrize(("places", "cells"), [(16, 3), (16, 6), (28, 6), (4, 6), (12, 6), (30, 100)])
def test_pooling_by_products_is_adaptive_pooling(places: int, cells: int) -> None:
    x = noise(2, 3, places)
    assert torch.allclose(x @ pooling(places, cells).T, F.adaptive_avg_pool1d(x, cells), atol=1e-6)


def test_maps_come_from_their_taps_and_without_any_from_the_last_block_after_the_norm() -> None:
    row = small_row("rvsa-vitb-upernet-potsdam")
    x = noise(1, 3, 144, 144)
    net = random_net(row)
    assert isinstance(net, RVSAUperNet)
    with torch.no_grad():
        assert net(x).shape == (1, 5, 144, 144)
        maps = net.backbone(x)
        assert [tuple(m.shape) for m in maps] == [(1, 32, s, s) for s in (36, 18, 9, 4)]
        net.backbone.blocks[3].mlp.fc2.bias += 1  # type: ignore[union-attr, operator]
        changed = net.backbone(x)
    assert [torch.equal(a, b) for a, b in zip(maps, changed, strict=True)] == [True, True, True, False]
    last = random_net(row, taps=[])
    assert isinstance(last, RVSAUperNet)
    with torch.no_grad():
        tokens = last.backbone.patch_embed(x) + last.backbone.pos_embed
        for block in last.backbone.blocks:
            tokens = block(tokens)
        expected = last.backbone.norm(tokens).transpose(1, 2).reshape(1, 32, 9, 9)
        found = last.backbone(x)
    assert torch.allclose(found[2], expected) and torch.allclose(found[3], F.max_pool2d(expected, 2))


@pytest.mark.parametrize(("name", "tile", "classes"), [("isaid", 896, 16), ("loveda", 512, 7), ("potsdam", 512, 5)])
def test_rows_state_the_published_sizes(name: str, tile: int, classes: int) -> None:
    for kind in ("vitb", "vitb-kvdiff", "vitaeb", "vitaeb-kvdiff"):
        row = teacher_row(f"rvsa-{kind}-upernet-{name}")
        assert (row.input_spec.tile, len(row.classes)) == (tile, classes) == (row.arch["image"], row.arch["classes"])
        # Keys and values apart were trained with the angles of keys.
        assert row.arch.get("own_angles", True) is not row.arch.get("apart", False)
