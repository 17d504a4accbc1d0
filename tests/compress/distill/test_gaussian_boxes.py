"""Turned boxes as Gaussians: the published formula, gradients, and nothing that jumps where the angle begins anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.compress.distill.box_loss import TURNED, assigned, box_loss
from rsedge.compress.distill.gaussian_boxes import apart, found, share, wanted, within
from rsedge.data.boxes.candidates import angles_of, places_of, turn_columns
from rsedge.data.boxes.geometry import centred, cornered, overlaps
from rsedge.data.boxes.oriented import regular
from rsedge.runtimes.inference.boxes import boxes_of
from tests.compress.distill.test_box_loss import Cells, detector
from tests.data.boxes.test_oriented_boxes import inside, some

seeds = st.integers(0, 2**31)


def rows(boxes: np.ndarray) -> torch.Tensor:
    """(n, 5) as what is taught: corners, certainty 1, one class, angle."""
    corners, one = cornered(boxes), np.ones((len(boxes), 2))
    return torch.from_numpy(np.concatenate([corners[:, :4], one, corners[:, 4:]], 1))


def hellinger(first: np.ndarray, second: np.ndarray) -> float:
    """Of two boxes (5,), as the paper writes it, with covariances by a rotation."""
    means, covariances = [], []
    for x, y, width, height, angle in (first, second):
        cos, sin = math.cos(angle), math.sin(angle)
        axes = np.array([[cos, sin], [-sin, cos]])  # Rows count downwards.
        means.append(np.array([x, y]))
        covariances.append(axes @ np.diag([width**2 / 12, height**2 / 12]) @ axes.T)
    middle, step = sum(covariances) / 2, means[0] - means[1]
    dets = [np.linalg.det(c) for c in covariances]
    distance = step @ np.linalg.inv(middle) @ step / 8 + np.log(np.linalg.det(middle) / np.sqrt(dets[0] * dets[1])) / 2
    return float(np.sqrt(1 - np.exp(-distance)))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_distances_are_those_of_the_paper(seed: int) -> None:
    first, second = some(4, seed), some(4, seed + 1)
    made = apart(wanted(rows(first)), wanted(rows(second)))
    np.testing.assert_allclose(made, [hellinger(a, b) for a, b in zip(first, second, strict=True)], atol=1e-5)
    assert (apart(wanted(rows(first)), wanted(rows(first))) < 2e-3).all()
    np.testing.assert_allclose(apart(wanted(rows(second)), wanted(rows(first))), made, atol=1e-9)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_gradients_are_those_of_differences(seed: int) -> None:
    """In centre, size and both numbers of the turn, at the wrap too."""
    rng = np.random.default_rng(seed)
    target = some(3, seed)
    target[0, 4] = math.pi / 2 - 1e-3
    near = target + rng.normal(size=target.shape) * [2, 2, 2, 2, 0.2]
    near[0, 4] = -math.pi / 2 + 1e-3
    near[:, 2:4] = near[:, 2:4].clip(3)
    turn = turn_columns(near[:, 4]) * rng.uniform(0.2, 1, (3, 1))
    made = torch.from_numpy(np.concatenate([near[:, :4], np.full((3, 2), 0.5), turn], 1)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda c: apart(found(c), wanted(rows(target))), made, eps=1e-6, atol=1e-5)


def test_nothing_jumps_where_the_angle_begins_anew() -> None:
    """The loss of all angles against one just below 90 degrees is smooth, and half a turn is none."""
    angles = np.linspace(-3 * math.pi, 3 * math.pi, 2401)
    boxes = np.tile([30.0, 30, 24, 6, 0], (len(angles), 1))
    boxes[:, 4] = angles
    target = boxes.copy()
    target[:, 4] = math.pi / 2 - 0.01
    losses = apart(wanted(rows(boxes)), wanted(rows(target))).numpy()
    assert np.abs(np.diff(losses)).max() < 0.02
    turns = (2400 // 6) * np.arange(7)
    np.testing.assert_allclose(losses[turns], losses[0], atol=1e-6)
    # Sides that change places by a quarter of a turn are the same box.
    swapped = boxes[:, [0, 1, 3, 2, 4]] + np.array([0, 0, 0, 0, math.pi / 2])
    np.testing.assert_allclose(apart(wanted(rows(swapped)), wanted(rows(target))), losses, atol=1e-6)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_points_lie_in_boxes_as_elsewhere(seed: int) -> None:
    boxes, points = some(3, seed), np.random.default_rng(seed).uniform(0, 100, (200, 2))
    made = within(torch.from_numpy(points), wanted(rows(boxes))).numpy()
    assert all((row == inside(box, points)).all() for row, box in zip(made, boxes, strict=True))


def test_angles_go_into_two_numbers_and_back() -> None:
    angles = np.linspace(-math.pi / 2 + 1e-6, math.pi / 2, 50)
    candidates = np.concatenate([np.zeros((50, 4)), np.full((50, 3), 0.5), 0.3 * turn_columns(angles)], 1)
    np.testing.assert_allclose(angles_of(candidates), angles, atol=1e-9)
    assert places_of(candidates, True).shape == (50, 5) and places_of(candidates[:, :7], False).shape == (50, 4)


@pytest.mark.parametrize("certain", [1.0, 0.6])
def test_turned_boxes_that_are_taught_are_found(certain: float) -> None:
    taught = np.array([[20, 16, 24, 6, 0.7], [44, 40, 20, 5, 1.55], [16, 46, 16, 5, -1.56]])
    table = rows(taught).float()[None]
    table[..., 4] = certain
    net = Cells(detector(oriented=True).grid, 8)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        box_loss(net(), table, net.grid).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    made = boxes_of(net()[0].detach().numpy(), 0.2, oriented=True)
    shares = overlaps(made.places, cornered(taught))
    assert len(made) == 3 and (shares.max(0) > 0.8).all()
    np.testing.assert_allclose(made.scores, certain, atol=0.1)
    apart_by = (regular(centred(made.places))[shares.argmax(0), 4] - taught[:, 4] + math.pi / 2) % math.pi - math.pi / 2
    assert np.abs(apart_by).max() < 0.05


def test_long_thin_and_far_boxes_give_numbers() -> None:
    boxes = np.array([[50, 50, 1500, 1.0, 0.785], [50, 50, 1500, 1.0, 0.785], [9000, 50, 2, 2, 0.0]])
    other = boxes[[1, 2, 0]]
    made = wanted(rows(boxes).float()).requires_grad_(True)
    losses = apart(made, wanted(rows(other).float()))
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(losses).all() and made.grad is not None and torch.isfinite(made.grad).all()
    nothing = torch.zeros(1, 8)  # An untrained head that says no turn at all.
    nothing[0, 2:4] = 8
    assert torch.isfinite(share(found(nothing), wanted(rows(other).float()))).all()


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_cells_of_turned_boxes_are_in_or_near_them_and_taken_once(seed: int) -> None:
    boxes = some(3, seed)
    boxes[:, :2] = boxes[:, :2] * 0.6
    net = detector(oriented=True).eval()
    grid = net.grid
    assert isinstance(grid, torch.Tensor)
    real = rows(boxes).float()
    with torch.inference_mode():
        candidates = net(torch.rand(1, 3, 64, 64))[0]
    cells, which = assigned(found(candidates), candidates[:, 4:6].clamp(0.01, 0.99), real, grid, TURNED)
    assert len(set(cells.tolist())) == len(cells) > 0
    centres = grid[cells, :2]
    near = ((centres - torch.from_numpy(boxes[which.numpy(), :2])).abs() < 2.5 * grid[cells, 2:]).all(1)
    held = within(grid[:, :2], wanted(real))[which, cells]
    assert (near | held).all()
