"""Average precision worked out by hand, its invariants, and an independent implementation of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.metrics.boxes import BoxComparison, average_precision, box_agreement, box_likeness, hits_of
from rsedge.data.metrics.figures import record_of
from tests.data.boxes.test_box_geometry import some_boxes

GROUPS = np.array(["a", "b", "c"])


def images(seed: int, noise: float = 1.5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Truth (M, 5) of two classes in three images, and boxes near it with some missed and some false."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for i in range(3):
        boxes, classes = some_boxes(seed + i, 6), rng.integers(0, 2, 6)
        truth.append(np.column_stack([boxes, classes]).astype(np.float32))
        told = np.concatenate([boxes[:4] + rng.normal(0, noise, (4, 4)), some_boxes(seed + 9 + i, 3)])
        scores, classes = rng.random(7), np.concatenate([classes[:4], rng.integers(0, 2, 3)])
        table = np.column_stack([told, scores, classes]).astype(np.float32)
        found.append(table[np.argsort(-table[:, 4])])
    return found, truth


def reference_ap(found: list[np.ndarray], truth: list[np.ndarray], number: int, threshold: float) -> float:
    """COCO's, written out box by box; recalls meet their levels as pycocotools compares them, with no tolerance."""
    rows = sorted(((-f[4], i, f) for i, t in enumerate(found) for f in t if f[5] == number), key=lambda r: (r[0], r[1]))
    left = [[g for g in t if g[4] == number] for t in truth]
    objects, hits, curve = sum(map(len, left)), 0, []
    for rank, (_, i, f) in enumerate(rows, 1):
        best, place = threshold, -1
        for k, g in enumerate(left[i]):
            w, h = (max(0.0, min(f[2 + a], g[2 + a]) - max(f[a], g[a])) for a in (0, 1))
            union = (f[2] - f[0]) * (f[3] - f[1]) + (g[2] - g[0]) * (g[3] - g[1]) - w * h
            if w * h / union >= best:
                best, place = w * h / union, k
        if place >= 0:
            left[i].pop(place)
            hits += 1
        curve.append((hits / objects, hits / rank))
    at = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
    return float(np.mean(at))


@given(st.integers(0, 2**31), st.sampled_from([0.5, 0.65, 0.75]))
@settings(max_examples=25, deadline=None)
def test_average_precision_is_that_written_out_box_by_box(seed: int, threshold: float) -> None:
    found, truth = images(seed)
    for number in (0, 1):
        if not any((t[:, 4] == number).any() for t in truth):
            continue
        mine = average_precision([hits_of(f, t, number, threshold) for f, t in zip(found, truth, strict=True)])
        assert mine == pytest.approx(reference_ap(found, truth, number, threshold), abs=1e-6)


def test_a_curve_worked_out_by_hand() -> None:
    truth = np.array([[0, 0, 10, 10, 0], [20, 0, 30, 10, 0]], np.float32)
    found = np.array([[0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.8, 0], [20, 0, 30, 10, 0.7, 0]], np.float32)
    # Recall 0.5 at precision 1, recall 1 at 2/3: 51 of 101 levels and 50.
    assert average_precision([hits_of(found, truth, 0, 0.5)]) == pytest.approx((51 + 50 * 2 / 3) / 101)
    record = record_of(BoxComparison("boxes", [found], [truth], ["tree"], GROUPS[:1], 0.75))
    assert (record["precision"], record["recall"], record["f1"]) == (0.5, 0.5, 0.5)
    assert record["ap50_interval"] is None and record["objects"] == 2 and record["n"] == 1


def test_perfect_and_empty() -> None:
    _, truth = images(3)
    perfect = [np.column_stack([t[:, :4], np.linspace(1, 0.5, len(t)), t[:, 4]]).astype(np.float32) for t in truth]
    record = record_of(BoxComparison("boxes", perfect, truth, ["a", "b"], GROUPS, 0.25))
    assert record["ap50"] == record["ap50_95"] == record["f1"] == 1.0
    assert record["ap50_interval"] is None, "a few images that are all right tell no spread"
    nothing = [p[:0] for p in perfect]
    record = record_of(BoxComparison("boxes", nothing, truth, ["a", "b", "never"], GROUPS, 0.25))
    assert record["ap50"] == 0.0 and record["ap50_by_class"]["never"] is None and record["f1"] == 0.0
    assert box_agreement(nothing, nothing, 0.25) == box_likeness(perfect, nothing, 2, 0.25) == 1.0
    assert box_agreement(perfect, perfect, 0.25) == 1.0 and box_agreement(perfect, nothing, 0.25) == 0.0


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_agreement_does_not_ask_which_came_first(seed: int) -> None:
    found, _ = images(seed, 0.3)
    other = [np.column_stack([f[:, :4] + 0.2, f[:, 4] ** 2, f[:, 5]]).astype(np.float32) for f in found]
    forward, back = box_agreement(found, other, 0.3), box_agreement(other, found, 0.3)
    assert forward == pytest.approx(back, abs=0.1) and 0 <= forward <= 1
    assert 0 <= box_likeness(found, other, 2, 0.3) <= 1


def test_a_turned_box_is_found_by_one_that_is_turned_alike() -> None:
    """The box along rows around a ship covers far more than the ship."""
    ship = np.array([[10, 26, 50, 34, 0, np.pi / 4]], np.float32)
    along = np.array([[10, 26, 50, 34, 0.9, 0, np.pi / 4]], np.float32)
    around = np.array([[13, 13, 47, 47, 0.9, 0]], np.float32)
    for found, wanted in ((along, 1.0), (around, 0.0)):
        record = record_of(BoxComparison("boxes", [found], [ship], ["ship"], GROUPS[:1], 0.25))
        assert record["ap50"] == record["f1"] == wanted
    assert box_agreement([along], [along + np.array([0, 0, 0, 0, 0, 0, np.pi])], 0.25) == 1.0
    assert box_agreement([along], [around], 0.25) == 0.0
    assert box_likeness([along], [along], 1, 0.25) == 1.0
