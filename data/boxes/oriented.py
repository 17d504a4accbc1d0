"""Boxes that are turned: (n, 5) of centre x, y, width, height (pixels) and the angle by which the width is turned from the image's
rows (radians). Rows count downwards, and angles as one sees them: a positive one turns counter-clockwise. The width is the longer
side and the angle lies from -pi/2 up to pi/2 ("le90"), as in OBBDetection (Xie et al. 2021).

:mod:`.geometry` says how tables of boxes hold them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]
HALF = np.pi / 2


def regular(boxes: Numbers) -> Numbers:
    """The same boxes with the longer side as width and the angle in its range."""
    x, y, width, height, angle = np.moveaxis(boxes, -1, 0)
    swap = width <= height
    turned = np.where(swap, angle + HALF, angle)
    turned = (turned + HALF) % np.pi - HALF
    return np.stack([x, y, np.where(swap, height, width), np.where(swap, width, height), turned], -1)


def corners_of(boxes: Numbers) -> Numbers:
    """(n, 5) -> corners (n, 4, 2) as x, y, one after the other around the box."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack([cos, -sin], 1) * boxes[:, 2:3] / 2
    across = np.stack([-sin, -cos], 1) * boxes[:, 3:4] / 2
    centre = boxes[:, :2]
    return np.stack(
        [centre + along + across, centre + along - across, centre - along - across, centre - along + across], 1
    )


def enclosing(boxes: Numbers) -> Numbers:
    """The smallest boxes along rows and columns around them: (n, 4) as x low, y low, x high, y high."""
    cos, sin = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    half = np.stack([cos * boxes[:, 2] + sin * boxes[:, 3], sin * boxes[:, 2] + cos * boxes[:, 3]], 1) / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def overlaps_of(first: Numbers, second: Numbers) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (n, 5) with boxes (m, 5): (n, m); 0 where neither has an area."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    found = np.zeros((len(first), len(second)))
    one, other = (enclosing(boxes) for boxes in (first, second))
    meet = (one[:, None, :2] < other[None, :, 2:]) & (other[None, :, :2] < one[:, None, 2:])
    a, b = np.nonzero(meet.all(2))
    common = shared_areas(first[a], second[b])
    union = first[a, 2] * first[a, 3] + second[b, 2] * second[b, 3] - common
    found[a, b] = np.divide(common, union, out=np.zeros(len(a)), where=union > 0)
    return found.clip(0, 1)


def shared_areas(first: Numbers, second: Numbers) -> Numbers:
    """Area that boxes (n, 5) share with others (n, 5), pair by pair.

    The outline of the first is pressed onto the second, along its sides: what lies outside moves to its edge. The area inside the
    pressed outline is that of the intersection, as a convex outline crosses each line across the box twice at the most.
    """
    points = corners_of(first) - second[:, None, :2]
    cos, sin = np.cos(second[:, 4:5]), np.sin(second[:, 4:5])
    seen = np.stack([points[..., 0] * cos - points[..., 1] * sin, points[..., 0] * sin + points[..., 1] * cos], -1)
    half = second[:, None, 2:4] / 2
    step = np.roll(seen, -1, axis=1) - seen
    bends = [np.divide(edge - seen, step, out=np.zeros_like(step), where=step != 0) for edge in (-half, half)]
    ends = np.broadcast_to(np.array([0.0, 1.0]), (*step.shape[:2], 2))
    at = np.sort(np.concatenate([ends, *bends], -1).clip(0, 1), -1)[..., None]
    pressed = (seen[:, :, None] + at * step[:, :, None]).clip(-half[:, :, None], half[:, :, None])
    x, y = np.moveaxis(pressed, -1, 0)
    area = ((x[..., 1:] - x[..., :-1]) * (y[..., 1:] + y[..., :-1])).sum((1, 2)) / 2
    return np.abs(area)


def rectangle_around(points: Numbers) -> Numbers:
    """The turned box (5,) of the smallest area around points (p, 2) as x, y.

    One of its sides lies along one of the points' convex hull (Freeman and Shapira 1975). Points on one line have a box without an
    area.
    """
    hull = _hull(points.astype(np.float64))
    middle = hull.mean(0)
    steps = np.roll(hull, -1, axis=0) - hull
    # As one sees them: rows count downwards.
    angles = np.arctan2(-steps[:, 1], steps[:, 0])
    boxes = np.stack([_along(hull - middle, angle) for angle in angles])
    best = boxes[(boxes[:, 2] * boxes[:, 3]).argmin()]
    best[:2] += middle
    return regular(best[None])[0]


def seen_part(box: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """What of a box (5,) lies in a window of the image, as a box of its angle; one without an area where nothing does.

    Args:
        low, high: the window's upper left and lower right corner, x and y.
    """
    window = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]], np.float64)
    left = _clipped(corners_of(box[None].astype(np.float64))[0], window)
    if not len(left):
        return np.array([box[0], box[1], 0.0, 0.0, box[4]])
    return _along(left, float(box[4]))


def _along(points: Numbers, angle: float) -> Numbers:
    """The smallest box (5,) of an angle around points."""
    cos, sin = np.cos(angle), np.sin(angle)
    axes = np.array([[cos, -sin], [sin, cos]])
    seen = points @ axes.T
    low, high = seen.min(0), seen.max(0)
    return np.concatenate([(low + high) / 2 @ axes, high - low, [angle]])


def _hull(points: Numbers) -> Numbers:
    """Corners of the convex hull, one after the other (Andrew 1979)."""
    ordered = np.unique(points, axis=0)
    if len(ordered) < 3:
        return ordered
    halves = []
    for row in (ordered, ordered[::-1]):
        kept: list[Numbers] = []
        for point in row:
            while len(kept) > 1 and _left_of(kept[-2], kept[-1], point) <= 0:
                kept.pop()
            kept.append(point)
        halves.append(kept[:-1])
    return np.array([*halves[0], *halves[1]])


def _left_of(start: Numbers, end: Numbers, point: Numbers) -> float:
    return float((end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0]))


def _clipped(subject: Numbers, window: Numbers) -> Numbers:
    """What of a convex polygon (p, 2) lies in another (Sutherland and Hodgman 1974)."""
    middle = window.mean(0)
    for start, end in zip(window, np.roll(window, -1, 0), strict=True):
        if not len(subject):
            return subject
        edge = end - start
        normal = np.array([-edge[1], edge[0]])
        normal = normal if normal @ (middle - start) >= 0 else -normal
        subject = _one_side((subject - start) @ normal, subject)
    return subject


def _one_side(depth: Numbers, polygon: Numbers) -> Numbers:
    """The part of a polygon on which ``depth``, given at its corners, is not negative."""
    found = []
    for i in range(len(polygon)):
        before, after = depth[i - 1], depth[i]
        if (before < 0) != (after < 0):
            found.append(polygon[i - 1] + (polygon[i] - polygon[i - 1]) * (before / (before - after)))
        if after >= 0:
            found.append(polygon[i])
    return np.array(found).reshape(-1, 2)
