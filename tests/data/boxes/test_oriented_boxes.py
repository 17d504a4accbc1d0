"""Turned boxes: corners, the box around, overlaps against shapely's, suppression, what of them lies in a window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.boxes.geometry import (
    centred,
    clipped,
    cornered,
    matched,
    outlines,
    overlaps,
    suppressed,
    turned,
    upright,
)
from rsedge.data.boxes.oriented import corners_of, enclosing, overlaps_of, rectangle_around, regular

RNG = np.random.default_rng(0)
seeds = st.integers(0, 2**32 - 1)


def some(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(20, 80, (count, 2)), rng.uniform(4, 50, (count, 2)), rng.uniform(-4, 4, count)])


def inside(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether points lie in a box: seen along its sides, which positive angles turn counter-clockwise as one sees them."""
    x, y = (points - box[:2]).T
    cos, sin = np.cos(box[4]), np.sin(box[4])
    return (np.abs(x * cos - y * sin) <= box[2] / 2) & (np.abs(x * sin + y * cos) <= box[3] / 2)


def test_a_positive_angle_lifts_the_right_end() -> None:
    corners = corners_of(np.array([[50, 50, 40, 10, np.pi / 6]]))[0]
    right = corners[corners[:, 0].argmax()]
    assert right[0] > 50 and right[1] < 50 + 5  # rows count downwards


def test_regular_boxes_have_the_same_corners() -> None:
    boxes = some(200)
    tidy = regular(boxes)
    assert (tidy[:, 2] >= tidy[:, 3]).all() and (tidy[:, 4] >= -np.pi / 2).all() and (tidy[:, 4] < np.pi / 2).all()
    before, after = (np.sort(np.round(corners_of(b), 6), 1) for b in (boxes, tidy))
    assert np.allclose(before, after, atol=1e-5)


def test_the_box_around_touches_all_sides() -> None:
    boxes = some(50)
    corners = corners_of(boxes)
    assert np.allclose(enclosing(boxes), np.concatenate([corners.min(1), corners.max(1)], 1))


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_overlaps_are_those_of_shapely(seed: int) -> None:
    """And lie between 0 and 1, ask for no order and do not change where both are turned and moved alike."""
    shapely = pytest.importorskip("shapely")
    first, second = some(6, seed), some(5, seed + 1)
    first[0], second[0] = second[1], second[1]  # The same box, and one with a side on another's.
    second[2] = second[1] + [0, 0, 0, 7, 0]
    found = overlaps_of(first, second)
    a, b = (shapely.polygons(corners_of(boxes)) for boxes in (first, second))
    common = shapely.area(shapely.intersection(a[:, None], b[None]))
    wanted = common / (shapely.area(a)[:, None] + shapely.area(b)[None] - common)
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert (found >= 0).all() and (found <= 1).all() and found[0, 0] == pytest.approx(1)
    np.testing.assert_allclose(overlaps_of(second, first), found.T, atol=1e-9)
    turn, move = np.random.default_rng(seed).uniform(-3, 3, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    for boxes in (first, second):
        boxes[:, :2] = boxes[:, :2] @ np.array([[cos, -sin], [sin, cos]]) + move
        boxes[:, 4] += turn
    np.testing.assert_allclose(overlaps_of(first, second), found, atol=1e-9)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_without_a_turn_overlaps_are_those_of_boxes_along_rows(seed: int) -> None:
    first, second = some(6, seed), some(5, seed + 1)
    first[:, 4] = second[:, 4] = 0
    one, other = (cornered(boxes).astype(np.float32) for boxes in (first, second))
    np.testing.assert_allclose(overlaps(one, other), overlaps(one[:, :4], other[:, :4]), atol=2e-6)
    np.testing.assert_allclose(overlaps(one, other[:, :4]), overlaps(one[:, :4], other[:, :4]), atol=2e-6)
    assert np.allclose(centred(cornered(first)), first) and np.allclose(upright(one), one[:, :4], atol=1e-5)


def test_two_squares_across_make_an_octagon() -> None:
    square, across, beside = np.array([[3, 4, 1, 1, 0], [3, 4, 1, 1, np.pi / 4], [4, 4, 1, 1, 0]])[:, None]
    assert overlaps_of(square, across)[0, 0] == pytest.approx(1 / np.sqrt(2))
    assert overlaps_of(square, beside)[0, 0] == pytest.approx(0, abs=1e-12)
    assert overlaps_of(square, np.array([[3, 4, 0, 0, 0.0]]))[0, 0] == 0
    assert overlaps_of(np.zeros((1, 5)), np.zeros((1, 5)))[0, 0] == 0
    assert overlaps_of(square, square[:0]).shape == (1, 0)


def test_the_less_certain_of_two_that_overlap_goes() -> None:
    # One across another, of which 64 of 576 pixels are common (0.111), and one below it; the boxes around them would all meet.
    boxes = cornered(np.array([[50, 50, 40, 8, 0], [50, 50, 40, 8, np.pi / 2], [50, 59, 40, 8, 0]], np.float32))
    one = np.zeros(3, np.int64)
    assert suppressed(boxes, one, 0.1, 10).tolist() == [0, 2]
    assert suppressed(boxes, one, 0.12, 10).tolist() == [0, 1, 2]
    assert suppressed(boxes, np.array([0, 1, 0]), 0.1, 10).tolist() == [0, 1, 2]
    assert suppressed(boxes, one, 0.12, 2).tolist() == [0, 1]
    assert suppressed(boxes[:0], one[:0], 0.1, 2).tolist() == []
    assert matched(boxes[[1, 0]], boxes, 0.5).tolist() == [1, 0]


@given(seeds, st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_turned_boxes_turn_with_their_image(seed: int, turn: int) -> None:
    size = 100
    boxes = cornered(some(4, seed)).astype(np.float32)
    points = outlines(boxes).reshape(-1, 2)
    moved = turned(np.concatenate([points, points], 1).astype(np.float32), turn, size)[:, :2].reshape(-1, 4, 2)
    found = outlines(turned(boxes, turn, size, angled=True))
    for mine, wanted in zip(found, moved, strict=True):
        apart = np.linalg.norm(mine[:, None] - wanted[None], axis=2)
        assert (apart.min(0) < 1e-3).all() and (apart.min(1) < 1e-3).all()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_smallest_rectangle_around_a_box_is_the_box(seed: int) -> None:
    boxes = regular(some(3, seed))
    for box, corners in zip(boxes, corners_of(boxes), strict=True):
        middles = (corners + np.roll(corners, 1, 0)) / 2
        found = rectangle_around(np.concatenate([corners, middles, corners[:1]]))
        assert overlaps_of(found[None], box[None])[0, 0] == pytest.approx(1)
        assert abs(np.sin(found[4] - box[4])) < 1e-6 or np.isclose(box[2], box[3])


def test_a_rectangle_lies_along_a_side_of_the_points() -> None:
    triangle = np.array([[0, 0], [8, 0], [2, 3]])
    found = rectangle_around(triangle)
    shapely = pytest.importorskip("shapely")
    assert found[2] * found[3] == pytest.approx(
        shapely.area(shapely.minimum_rotated_rectangle(shapely.Polygon(triangle)))
    )
    assert rectangle_around(np.array([[1, 1], [5, 5], [3, 3]]))[3] == pytest.approx(0, abs=1e-9)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_what_lies_in_a_window_keeps_its_angle_and_holds_all_that_is_seen(seed: int) -> None:
    boxes = cornered(some(5, seed)).astype(np.float32)
    part = clipped(boxes, (30, 20), (70, 60))
    assert (part[:, 4] == boxes[:, 4]).all()
    points = np.random.default_rng(seed).uniform((30, 20), (70, 60), (4000, 2))
    for whole, seen in zip(centred(boxes), centred(part), strict=True):
        assert not (inside(whole, points) & ~inside(seen + np.array([0, 0, 1e-3, 1e-3, 0]), points)).any()
        assert (seen[2:4] <= whole[2:4] + 1e-3).all()
    boxes[:, 4] = 0
    mine, plain = clipped(boxes, (30, 20), (70, 60)), clipped(boxes[:, :4], (30, 20), (70, 60))
    areas = np.clip(plain[:, 2:] - plain[:, :2], 0, None).prod(1)
    np.testing.assert_allclose(centred(mine)[:, 2:4].prod(1), areas, atol=1e-2)
