"""Both parts of a detector of turned boxes and what runs between them."""

from __future__ import annotations

import numpy as np
import pytest

from rsedge.data.boxes.proposals import anchors
from rsedge.runtimes.wholes.oriented import detections

RNG = np.random.default_rng(0)
IMAGE = 144


class Fixed:
    """A part that gives what it was told."""

    def __init__(self, inputs: dict[str, tuple[tuple[int, ...], np.dtype]], outputs: dict[str, np.ndarray]) -> None:
        self.inputs, self.given, self.outputs = inputs, outputs, tuple(outputs)
        self.seen: dict[str, np.ndarray] = {}

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen = dict(inputs)
        return self.given


def test_the_second_part_gets_the_first_ones_maps_and_proposals() -> None:
    count = len(anchors(IMAGE)[0])
    objectness = RNG.random(count).astype(np.float32)
    offsets = (RNG.standard_normal((count, 6)) * 0.3).astype(np.float32)
    kind = np.dtype(np.float32)
    maps = np.ones((1, 4, 36, 36), np.float32)
    first = Fixed(
        {"image": ((1, 3, IMAGE, IMAGE), kind)},
        {"map4": maps, "objectness": objectness[None], "offsets": offsets[None]},
    )
    refined = np.array([[[50, 50, 40, 8, 0.5], [10, 10, 8, 4, 0], [0, 0, 0, 0, 0]]], np.float32)
    scores = np.array([[[0.9, 0.1], [0.2, 0.8], [0.04, 0.96]]], np.float32)
    second = Fixed({"map4": (maps.shape, kind), "boxes": ((1, 3, 5), kind)}, {"scores": scores, "refined": refined})
    image = np.zeros((1, 3, IMAGE, IMAGE), np.float32)
    found = detections({"a": first, "b": second}, ("a", "b"), image)
    assert set(second.seen) == {"map4", "boxes"} and second.seen["boxes"].shape == (1, 3, 5)
    assert found.scores.tolist() == [pytest.approx(0.9), pytest.approx(0.2)]
