"""Turned boxes: corners, the box around, overlaps against drawn lots, suppression."""

from __future__ import annotations

import numpy as np
import pytest

from rsedge.data.boxes.oriented import corners_of, enclosing, overlap_of, regular, suppressed_oriented

RNG = np.random.default_rng(0)


def some(count: int) -> np.ndarray:
    boxes = np.column_stack(
        [RNG.uniform(20, 80, (count, 2)), RNG.uniform(4, 50, (count, 2)), RNG.uniform(-4, 4, count)]
    )
    return boxes


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


def test_overlaps_are_those_of_drawn_points() -> None:
    points = RNG.uniform(-10, 110, (400_000, 2))
    for first, second in zip(some(20), some(20), strict=True):
        a, b = inside(first, points), inside(second, points)
        assert overlap_of(first, second) == pytest.approx((a & b).sum() / max((a | b).sum(), 1), abs=0.02)
        assert overlap_of(first, first) == pytest.approx(1)


def test_two_squares_across_make_an_octagon() -> None:
    square, across, beside = np.array([[3, 4, 1, 1, 0], [3, 4, 1, 1, np.pi / 4], [4, 4, 1, 1, 0]])
    assert overlap_of(square, across) == pytest.approx(1 / np.sqrt(2))
    assert overlap_of(square, beside) == pytest.approx(0, abs=1e-12)
    assert overlap_of(square, np.array([3, 4, 0, 0, 0.0])) == 0
    assert overlap_of(np.zeros(5), np.zeros(5)) == 0


def test_the_less_certain_of_two_that_overlap_goes() -> None:
    # One across, of which 64 of 576 pixels are common (0.111), the first, and one below it.
    boxes = np.array([[50, 50, 40, 8, np.pi / 2], [50, 50, 40, 8, 0], [50, 59, 40, 8, 0]], np.float32)
    scores = np.array([0.5, 0.9, 0.3], np.float32)
    assert suppressed_oriented(boxes, scores, 0.1, 10).tolist() == [1, 2]
    assert suppressed_oriented(boxes, scores, 0.12, 10).tolist() == [1, 0, 2]
    assert suppressed_oriented(boxes, scores, 0.12, 2).tolist() == [1, 0]
    assert suppressed_oriented(boxes[:0], scores[:0], 0.1, 2).tolist() == []
