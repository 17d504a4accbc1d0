"""Overlaps, turns and matches of boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.boxes.geometry import matched, overlaps, turned

ops = pytest.importorskip("torchvision.ops")
torch = pytest.importorskip("torch")
seeds = st.integers(0, 2**32 - 1)


def some_boxes(seed: int, count: int, size: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size - 12, (count, 2))
    return np.concatenate([low, low + rng.uniform(2, 12, (count, 2))], 1).astype(np.float32)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_overlaps_are_those_of_torchvision(seed: int) -> None:
    a, b = some_boxes(seed, 7), some_boxes(seed + 1, 5)
    np.testing.assert_allclose(overlaps(a, b), ops.box_iou(torch.from_numpy(a), torch.from_numpy(b)), atol=1e-6)
    assert overlaps(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)).tolist() == [[0.0]]


@given(st.integers(0, 7), seeds)
@settings(max_examples=30, deadline=None)
def test_boxes_turn_with_their_image(turn: int, seed: int) -> None:
    size, rng = 16, np.random.default_rng(seed)
    x, y = rng.integers(0, 10, 2)
    w, h = rng.integers(1, 6, 2)
    image = np.zeros((size, size))
    image[y : y + h, x : x + w] = 1
    image = np.rot90(image, turn % 4)
    image = image[:, ::-1] if turn >= 4 else image
    rows, cols = np.nonzero(image)
    box = turned(np.array([[x, y, x + w, y + h, 3]], np.float32), turn, size)[0]
    assert box.tolist() == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1, 3]


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_match_takes_each_true_box_once(seed: int) -> None:
    truth = some_boxes(seed, 6)
    found = np.concatenate([truth + 0.1, truth, some_boxes(seed + 2, 4)])
    taken = matched(found, truth, 0.5)
    real = taken[taken >= 0]
    assert len(set(real.tolist())) == len(real) == 6
    assert (overlaps(found[taken >= 0], truth)[np.arange(len(real)), real] >= 0.5).all()
    assert matched(found, truth[:0], 0.5).tolist() == [-1] * len(found)
