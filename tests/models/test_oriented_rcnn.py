"""The layers of Oriented R-CNN against torchvision's and the published formulas; the network whole and in parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rsedge.data.boxes.oriented import enclosing
from rsedge.data.boxes.proposals import edges, proposals
from rsedge.models.families.rvsa_oriented import HEADS, PROPOSALS, RVSAOriented, parts
from rsedge.models.layers.oriented import FINEST, FPN, STRETCH, aligned, refined
from rsedge.models.zoo import teacher_row
from rsedge.runtimes.inference.boxes import boxes_of
from tests.conftest import Results
from tests.models.small import random_net
from tests.models.small_parts import small_row

ops: Any = pytest.importorskip("torchvision").ops
STRIDES = (4, 8, 16, 32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def levels(channels: int = 3, image: int = 400) -> list[Tensor]:
    return [noise(1, channels, e, e, seed=e) for e in edges(image)[:4]]


def test_the_neck_is_torchvisions_feature_pyramid(results: Results) -> None:
    ours = FPN([6, 6, 6, 6], 5)
    other = ops.FeaturePyramidNetwork([6] * 4, 5, extra_blocks=ops.feature_pyramid_network.LastLevelMaxPool())
    names = {"lateral_convs.": "inner_blocks.", "fpn_convs.": "layer_blocks.", ".conv.": ".0."}
    state = ours.state_dict()
    for old, new in names.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    other.load_state_dict(state)
    maps = levels(6)
    with torch.no_grad():
        found, expected = ours(maps), other({str(i): m for i, m in enumerate(maps)})
    assert [tuple(m.shape[2:]) for m in found] == [(e, e) for e in edges(400)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected.values(), strict=True))
    results.setdefault("family rvsa_oriented", {})["library"] = "torchvision (neck, regions along rows)"


def corners(boxes: Tensor) -> Tensor:
    half = boxes[:, 2:4] * torch.tensor(STRETCH) / 2
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def test_regions_along_rows_are_torchvisions() -> None:
    maps = levels()
    torch.manual_seed(0)
    boxes = torch.cat([torch.rand(40, 2) * 440 - 20, torch.rand(40, 2) * 300 + 3, torch.zeros(40, 1)], 1)
    level = (corners(boxes)[:, 2:] - corners(boxes)[:, :2]).prod(1).sqrt().div(FINEST).log2().floor().clamp(0, 3)
    assert len(level.unique()) > 2
    found = aligned(maps, STRIDES, boxes[None])[0]
    for i, stride in enumerate(STRIDES):
        own = level == i
        expected = ops.roi_align(maps[i], [corners(boxes[own])], 7, 1 / stride, 2, aligned=True)
        assert torch.allclose(found[own], expected, atol=1e-4)
    # A quarter turn of the box turns what is seen in it.
    square = boxes.clone()
    square[:, 2], square[:, 3] = 70 / STRETCH[0], 70 / STRETCH[1]
    turned = square + torch.tensor([0, 0, 0, 0, math.pi / 2])
    assert torch.allclose(
        aligned(maps, STRIDES, turned[None]).rot90(1, (3, 4)), aligned(maps, STRIDES, square[None]), atol=1e-3
    )


def test_a_region_is_sampled_along_its_turned_sides(results: Results) -> None:
    """On a plane every cell has the plane's value at its middle, whichever way the box is turned."""
    plane = torch.arange(100.0)[None, :] * 2 + torch.arange(100.0)[:, None] * 5
    maps = [plane[None, None], *(torch.zeros(1, 1, e, e) for e in edges(400)[1:4])]
    box = torch.tensor([[200.0, 180.0, 60.0, 30.0, 0.6]])
    found = aligned(maps, STRIDES, box[None])[0, 0, 0]
    for row in range(7):
        for column in range(7):
            along = ((column + 0.5) / 7 - 0.5) * 60 * STRETCH[0]
            down = ((row + 0.5) / 7 - 0.5) * 30 * STRETCH[1]
            x = 200 + along * math.cos(0.6) + down * math.sin(0.6)
            y = 180 - along * math.sin(0.6) + down * math.cos(0.6)
            assert float(found[row, column]) == pytest.approx((x / 4 - 0.5) * 2 + (y / 4 - 0.5) * 5, rel=1e-4)
    results.setdefault("family rvsa_oriented", {})["formulas"] = "turned regions, boxes"


def test_offsets_of_a_region_are_along_its_sides() -> None:
    boxes = torch.tensor([[50.0, 60, 40, 10, 0.5], [50, 60, 40, 10, 1.5], [50, 60, 12, 11, -1.5]])
    same = refined(boxes, torch.zeros(3, 5))
    assert torch.allclose(same, boxes, atol=1e-5)
    along = refined(boxes[:1], torch.tensor([[5.0, 0, 0, 0, 0]]))[0]  # half a width
    assert along[:2].tolist() == pytest.approx([50 + 20 * math.cos(0.5), 60 - 20 * math.sin(0.5)], abs=1e-4)
    over = refined(boxes[1:2], torch.tensor([[0.0, 0, 0, 0, 3.0]]))[0]
    assert float(over[4]) == pytest.approx(1.8 - math.pi, abs=1e-5)
    swapped = refined(boxes[2:], torch.tensor([[0.0, 0, -5, 5, 0]]))[0]
    assert swapped[2:].tolist() == pytest.approx([11 * math.e, 12 / math.e, -1.5 + math.pi / 2], abs=1e-4)


def test_the_whole_network_gives_boxes_around_what_its_parts_find() -> None:
    net = random_net(small_row("rvsa-vitaeb-kvdiff-oriented-dior"))
    assert isinstance(net, RVSAOriented)
    x = noise(2, 3, 144, 144)
    split = parts(net)
    assert split[PROPOSALS].inputs["image"].shape == (1, 3, 144, 144)
    with torch.no_grad():
        rows = net(x)
    assert rows.shape == (2, 12, 25) and set(rows[..., 4].unique().tolist()) <= {0.0, 1.0}
    first = split[PROPOSALS].run({"image": x[1:].numpy()})
    boxes, count = proposals(first["objectness"][0], first["offsets"][0], 144, 12)
    assert count and len(first["objectness"][0]) == 3 * sum(e * e for e in edges(144))
    second = split[HEADS].run({**{k: first[k] for k in split[HEADS].inputs if k != "boxes"}, "boxes": boxes[None]})
    assert np.allclose(second["scores"].sum(2), 1, atol=1e-5)
    around = enclosing(second["refined"][0])
    assert np.allclose(rows[1, :, :2].numpy(), (around[:, :2] + around[:, 2:]) / 2, atol=1e-3)
    assert len(boxes_of(rows[1].numpy(), score=0.01))


@pytest.mark.parametrize(("name", "tile", "classes"), [("dota", 1024, 15), ("dior", 800, 20)])
def test_rows_state_the_published_sizes(name: str, tile: int, classes: int) -> None:
    for kind in ("vitb", "vitb-kvdiff", "vitaeb", "vitaeb-kvdiff"):
        row = teacher_row(f"rvsa-{kind}-oriented-{name}")
        assert (row.input_spec.tile, len(row.classes)) == (tile, classes) == (row.arch["image"], row.arch["classes"])
