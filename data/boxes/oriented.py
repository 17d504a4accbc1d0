"""Boxes that are turned: (n, 5) of centre x, y, width, height (pixels) and the angle by which the width is turned from the image's
rows (radians). Rows count downwards, and angles as one sees them: a positive one turns counter-clockwise. The width is the longer
side and the angle lies from -pi/2 up to pi/2 ("le90"), as in OBBDetection (Xie et al. 2021).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import Floats, Numbers

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


def overlap_of(first: Numbers, second: Numbers) -> float:
    """Intersection over union of two boxes (5,)."""
    areas = first[2] * first[3] + second[2] * second[3]
    common = _area(_clipped(corners_of(first[None])[0], corners_of(second[None])[0]))
    return float(common / (areas - common)) if areas > common else 0.0


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


def _area(polygon: Numbers) -> float:
    if len(polygon) < 3:
        return 0.0
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def suppressed_oriented(boxes: Floats, scores: Floats, most_overlap: float, most: int) -> npt.NDArray[np.intp]:
    """Numbers of the boxes (n, 5) of one class that no kept, more certain one overlaps by more than ``most_overlap``."""
    order = np.argsort(-scores, kind="stable")
    around = enclosing(boxes)
    kept: list[int] = []
    for i in order:
        near = [k for k in kept if _meet(around[i], around[k])]
        if all(overlap_of(boxes[i], boxes[k]) <= most_overlap for k in near):
            kept.append(int(i))
            if len(kept) == most:
                break
    return np.array(kept, dtype=np.intp)


def _meet(first: Numbers, second: Numbers) -> bool:
    return bool((first[:2] < second[2:]).all() and (second[:2] < first[2:]).all())
