"""What a detector of turned boxes needs between and behind its two parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsedge.data.boxes.oriented import corners_of, enclosing, overlaps_of
from rsedge.data.boxes.proposals import (
    SPREAD,
    OrientedSettings,
    anchors,
    candidates,
    edges,
    moved,
    proposals,
    reported,
)
from rsedge.data.errors import RequestError

RNG = np.random.default_rng(0)
IMAGE = 144


def test_anchors_are_eight_strides_wide_in_three_shapes_and_follow_the_maps() -> None:
    places, levels = anchors(800)
    assert edges(800) == (200, 100, 50, 25, 13) and edges(1024) == (256, 128, 64, 32, 16)
    assert len(places) == 3 * sum(e * e for e in edges(800)) and np.bincount(levels).tolist() == [
        3 * e * e for e in edges(800)
    ]
    size = places[:, 2:] - places[:, :2]
    assert np.allclose(np.sqrt(size.prod(1)), 8 * 4 * 2.0**levels, rtol=1e-5)
    assert np.allclose(size[:3, 1] / size[:3, 0], [0.5, 1, 2], rtol=1e-5)
    centres = (places[:, :2] + places[:, 2:]) / 2
    # The first of the second row of the finest map, and the second place of that row.
    assert np.allclose(centres[3 * 200], [0, 4]) and np.allclose(centres[3 * 201], [4, 4])


def offsets_of(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What the authors train for: where the upper corner and the right one touch the box around (Xie et al. 2021)."""
    around = enclosing(boxes)
    size, own = around[:, 2:] - around[:, :2], places[:, 2:] - places[:, :2]
    centre = (around[:, :2] + around[:, 2:]) / 2
    corners = corners_of(boxes)
    rows = np.arange(len(boxes))
    upper, right = corners[rows, corners[:, :, 1].argmin(1)], corners[rows, corners[:, :, 0].argmax(1)]
    parts = [
        (centre - (places[:, :2] + places[:, 2:]) / 2) / own,
        np.log(size / own),
        ((upper[:, 0] - centre[:, 0]) / size[:, 0])[:, None],
        ((right[:, 1] - centre[:, 1]) / size[:, 1])[:, None],
    ]
    return np.concatenate(parts, 1) / SPREAD


def test_moved_anchors_are_the_boxes_that_their_offsets_were_made_of() -> None:
    places, _ = anchors(IMAGE)
    places = places[RNG.integers(0, len(places), 300)].astype(np.float64)
    boxes = np.column_stack([RNG.uniform(0, 144, (300, 2)), RNG.uniform(31, 60, 300), RNG.uniform(5, 30, 300)])
    boxes = np.column_stack([boxes, RNG.uniform(-1.55, 1.55, 300)])
    assert np.allclose(moved(places, offsets_of(places, boxes)), boxes, atol=1e-6)


def test_offsets_are_held_within_bounds() -> None:
    place = np.array([[10, 10, 30, 30.0]])
    wild = moved(place, np.array([[0, 0, 50, -50, 0.3, 0.2]]))
    assert np.isfinite(wild).all() and wild[0, 2] <= 20 * 62.5 * 1.01
    # Both corners in one place: the box around.
    assert moved(place, np.array([[0, 0, 0, 0, 9, -9.0]]))[0, 2:4].tolist() == [20, 20]


def answer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = len(anchors(IMAGE)[0])
    return rng.random(count).astype(np.float32), (rng.standard_normal((count, 6)) * 0.3).astype(np.float32)


def test_proposals_are_torchvisions_suppression_level_by_level() -> None:
    ops = pytest.importorskip("torchvision").ops
    objectness, offsets = answer()
    settings = OrientedSettings(per_level=200, proposal_overlap=0.5)
    found, count = proposals(objectness, offsets, IMAGE, 150, settings)
    places, levels = anchors(IMAGE)
    best = np.concatenate([(own := np.flatnonzero(levels == i))[np.argsort(-objectness[own])][:200] for i in range(5)])
    boxes = moved(places[best], offsets[best])
    tensors = [torch.from_numpy(a) for a in (enclosing(boxes).astype(np.float32), objectness[best], levels[best])]
    kept = ops.batched_nms(*tensors, 0.5)[:150].numpy()
    assert count == 150 and np.allclose(found, boxes[kept], atol=1e-4)


def test_what_is_missing_of_the_proposals_is_zeros_and_reported_nowhere() -> None:
    objectness, offsets = answer()
    few = OrientedSettings(per_level=1)
    found, count = proposals(objectness, offsets, IMAGE, 9, few)
    assert count <= 5 and not found[count:].any() and found.shape == (9, 5)
    with pytest.raises(RequestError, match="objectness of 3 and offsets of"):
        proposals(objectness[:3], offsets, IMAGE, 9)


def test_reported_boxes_are_sure_enough_and_apart_within_their_class() -> None:
    boxes = np.array([[50, 50, 40, 8, 0], [50, 51, 40, 8, 0], [90, 50, 20, 8, 1]], np.float32)
    scores = np.array([[0.6, 0.3, 0.1], [0.7, 0.02, 0.28], [0.02, 0.04, 0.94]], np.float32)
    found = reported(scores, boxes)
    assert found.classes.tolist() == [0, 1] and np.allclose(found.scores, [0.7, 0.3])
    assert np.array_equal(found.boxes, boxes[[1, 0]])
    one = reported(scores, boxes, OrientedSettings(most=1))
    assert one.scores.tolist() == [pytest.approx(0.7)]
    assert overlaps_of(boxes[:1], boxes[1:2])[0, 0] > 0.1


def test_candidates_are_the_boxes_around() -> None:
    refined = np.array([[[50, 50, 40, 8, 0.5], [10, 10, 8, 4, 0], [0, 0, 0, 0, 0]]], np.float32)
    scores = np.array([[[0.9, 0.1], [0.2, 0.8], [0.04, 0.96]]], np.float32)
    rows = candidates(scores[0], refined[0], 2)
    assert rows.shape == (3, 6) and rows[:, 4].tolist() == [1, 1, 0]
    around = enclosing(refined[0])
    assert np.allclose(rows[0, 2:4], around[0, 2:] - around[0, :2]) and np.allclose(rows[0, :2], [50, 50])
    assert np.allclose(rows[:, 5], scores[0, :, 0])
