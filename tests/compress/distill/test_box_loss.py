"""Boxes are assigned to cells and learned; certainty weighs; rounding to 8 bits leaves decoding alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.compress.distill.box_loss import UPRIGHT, assigned, box_loss, generalised_overlap
from rsedge.compress.quantize.ptq import PtqSettings, decoding_names, last_layers, quantize
from rsedge.compress.quantize.qdq import _decoding as onnx_decoding
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.boxes.geometry import turned
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.students import build_student
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.runtimes.openvino.core import settings as cpu_settings
from tests.data.boxes.test_box_geometry import some_boxes

SIZE = 64
ops = pytest.importorskip("torchvision.ops")


def detector(classes: int = 2, seed: int = 0, oriented: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    return build_student("slim-detector", {
        "bands": 3, "classes": classes, "tile": SIZE, "oriented": oriented, "stem": 8, "encoder": [8, 16, 16], "blocks": [0, 0, 0],
        "decoder": [16, 16], "levels": [1, 2], "head": 16,
    })  # fmt: skip


def taught(boxes: list[tuple[float, ...]], certain: float = 1.0, rows: int = 6) -> torch.Tensor:
    """(1, rows, 8) of boxes (x0, y0, x1, y1, class)."""
    table = torch.zeros(1, rows, 8)
    for row, (*corners, number) in zip(table[0], boxes, strict=False):
        row[:4], row[4], row[5 + int(number)] = torch.tensor(corners), certain, 1
    return table


BOXES = [(5.0, 6.0, 15.0, 18.0, 0), (30.0, 30.0, 50.0, 44.0, 1), (40.0, 4.0, 47.0, 11.0, 1)]


class Cells(nn.Module):
    """A detector that is nothing but its cells' raw values."""

    def __init__(self, grid: torch.Tensor, values: int = 7) -> None:
        super().__init__()
        self.grid, self.raw = grid, nn.Parameter(torch.zeros(1, len(grid), values))
        self.raw.data[..., 4:7] = -4

    def forward(self) -> torch.Tensor:
        stride = self.grid[:, 2:]
        centre = self.grid[:, :2] + self.raw[..., :2] * stride
        size, scores = self.raw[..., 2:4].exp() * stride, self.raw[..., 4 : 7 - (self.raw.shape[-1] > 7)].sigmoid()
        return torch.cat([centre, size, scores, self.raw[..., 4 + scores.shape[-1] :].tanh()], -1)


@pytest.mark.parametrize("certain", [1.0, 0.6])
def test_what_is_taught_is_found_with_its_certainty(certain: float) -> None:
    net = Cells(detector().grid)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        box_loss(net(), taught(BOXES, certain), net.grid).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = boxes_of(net()[0].detach().numpy(), 0.2)
    order = np.argsort(found.corners[:, 0])
    assert len(found) == 3 and found.classes[order].tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.corners[order], np.array(BOXES)[:, :4], atol=1.0)
    np.testing.assert_allclose(found.scores, certain, atol=0.1)


@given(st.integers(0, 2**31), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_cells_are_in_or_near_their_box_and_taken_once(seed: int, count: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    grid = detector().grid
    assert isinstance(grid, torch.Tensor)
    boxes = torch.from_numpy(some_boxes(seed, count, SIZE))
    real = torch.cat([boxes, torch.ones(count, 1), torch.rand(count, 2, generator=rng), torch.zeros(count, 1)], 1)
    corners = torch.cat([grid[:, :2] - grid[:, 2:], grid[:, :2] + grid[:, 2:]], 1)
    cells, which = assigned(corners, torch.rand(len(grid), 3, generator=rng).clamp(0.01, 0.99), real, grid, UPRIGHT)
    assert len(set(cells.tolist())) == len(cells) > 0
    centres, stride = grid[cells, :2], grid[cells, 2:]
    middle = (boxes[which, :2] + boxes[which, 2:]) / 2
    inside = ((centres > boxes[which, :2]) & (centres < boxes[which, 2:])).all(1)
    assert (inside | ((centres - middle).abs() < 2.5 * stride).all(1)).all()


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_overlap_is_torchvisions(seed: int) -> None:
    a, b = (torch.from_numpy(some_boxes(seed + i, 6)) for i in range(2))
    torch.testing.assert_close(
        generalised_overlap(a, b), ops.generalized_box_iou(a, b).diagonal(), atol=1e-5, rtol=1e-4
    )


def test_empty_rows_do_not_count_and_certain_boxes_count_more() -> None:
    net = detector().eval()
    found, grid = net(torch.rand(1, 3, SIZE, SIZE)), net.grid
    assert isinstance(grid, torch.Tensor)
    short, long = taught(BOXES, rows=3), taught(BOXES, rows=40)
    torch.testing.assert_close(box_loss(found, short, grid), box_loss(found, long, grid))
    assert box_loss(found, taught([]), grid) < box_loss(found, taught(BOXES, 0.3), grid)
    assert torch.isfinite(box_loss(torch.zeros_like(found), long, grid))


@given(st.integers(0, 7))
@settings(max_examples=8, deadline=None)
def test_a_turned_view_teaches_what_was_taught(turn: int) -> None:
    """Turning the cells' centres and the boxes alike changes nothing."""
    grid = detector().grid
    assert isinstance(grid, torch.Tensor)
    corners = torch.cat([grid[:, :2] - 3, grid[:, :2] + 5], 1)
    moved = torch.from_numpy(turned(corners.numpy(), turn, SIZE))
    points = torch.from_numpy(turned(torch.cat([grid[:, :2]] * 2, 1).numpy(), turn, SIZE))[:, :2]

    def loss(box: torch.Tensor, cells: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found = torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2], torch.full((len(box), 3), 0.2)], 1)
        return box_loss(found[None], target, torch.cat([cells, grid[:, 2:]], 1))

    target = taught(BOXES)
    other = torch.from_numpy(turned(target.numpy(), turn, SIZE, angled=True))
    torch.testing.assert_close(loss(corners, grid[:, :2], target), loss(moved, points, other))


@pytest.mark.parametrize("oriented", [False, True])
def test_eight_bits_keep_pixels_scores_and_angles_apart(tmp_path: Path, oriented: bool) -> None:
    bands = tuple(BandSpec(name=n, scale=1 / 255, mean=0.5, std=0.3) for n in "abc")
    spec = InputSpec(bands=bands, tile=SIZE, dtype="uint8")
    net = detector(oriented=oriented).eval()
    with torch.no_grad():
        for head in net.heads:  # type: ignore[union-attr]
            head[1].weight.mul_(60)  # type: ignore[index]
            head[1].bias[4:] = 0  # type: ignore[index]
    tiles = list(np.random.default_rng(0).integers(0, 255, (8, *spec.shape)).astype(np.float32))
    made = export_onnx(
        Deployable(net, spec, "oriented" if oriented else "boxes"),
        spec,
        ("a", "b"),
        tmp_path / "f.onnx",
        input_dtype="float32",
    ).path
    f32 = read_openvino(made)
    ignored = set(decoding_names(f32))
    assert ignored and not ignored & set(last_layers(f32)) and len(last_layers(f32)) == 2
    outputs = []
    for model in (f32, quantize(f32, tiles, PtqSettings())):
        run = ov.Core().compile_model(model, "CPU", cpu_settings("CPU", "f32", 1))
        outputs.append(np.concatenate([run({0: t[None]})["logits"] for t in tiles]))
    scores = [o[..., 4:7] for o in outputs]
    assert outputs[0].shape[-1] == 7 + 2 * oriented
    assert scores[0].std() > 0.05
    assert np.abs(scores[0] - scores[1]).mean() < 0.3 * scores[0].std()
    assert np.abs(outputs[0][..., :2] - outputs[1][..., :2]).mean() < 1.5
    nodes = {n.name: n.op_type for n in onnx.load(made).graph.node}
    if oriented:
        turns = [o[..., 7:] for o in outputs]
        assert np.abs(turns[0] - turns[1]).mean() < 0.3 * turns[0].std() and np.abs(turns[0]).max() <= 1
    left = {nodes[name] for name in onnx_decoding(onnx.load(made))}
    assert {"Sigmoid", "Exp", "Concat"} <= left and not {"Conv", "Relu"} & left
