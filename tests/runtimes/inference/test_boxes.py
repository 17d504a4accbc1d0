"""Suppression of overlaps against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsedge.data.boxes.geometry import overlaps
from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.golden import candidate_gaps
from rsedge.runtimes.inference.boxes import boxes_of

torch = pytest.importorskip("torch")
ops = pytest.importorskip("torchvision.ops")


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
@settings(max_examples=25, deadline=None)
def test_boxes_are_those_of_torchvision(seed: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    candidates = rng.random((60, 5 + 3)).astype(np.float32)
    candidates[:, :2] *= 50
    candidates[:, 2:4] = candidates[:, 2:4] * 20 + 1
    found = boxes_of(candidates, 0.2, overlap)
    scores = (candidates[:, 4:5] * candidates[:, 5:]).max(1)
    classes = (candidates[:, 4:5] * candidates[:, 5:]).argmax(1)
    sure = scores > 0.2
    corners = np.concatenate(
        (candidates[:, :2] - candidates[:, 2:4] / 2, candidates[:, :2] + candidates[:, 2:4] / 2), 1
    )
    # torchvision shifts classes apart and rounds there: what lies on the threshold may fall to either side.
    assume(np.abs(overlaps(corners[sure], corners[sure]) - overlap).min() > 1e-5)
    kept = ops.batched_nms(
        torch.from_numpy(corners[sure]), torch.from_numpy(scores[sure]), torch.from_numpy(classes[sure]), overlap
    ).numpy()
    assert np.allclose(found.corners, corners[sure][kept]) and np.allclose(found.scores, scores[sure][kept])
    assert (np.diff(found.scores) <= 0).all()


def test_none_most_and_bad_input() -> None:
    assert len(boxes_of(np.zeros((5, 7), np.float32)).scores) == 0
    many = np.ones((5, 6), np.float32)
    many[:, 0] = np.arange(5) * 10
    assert len(boxes_of(many, max_detections=2).scores) == 2
    with pytest.raises(RequestError, match=r"\(A, 5 \+ classes\)"):
        boxes_of(np.zeros((5, 4), np.float32))
    with pytest.raises(RequestError, match="between 0 and 1"):
        boxes_of(many, score=2)


def test_picks_are_the_candidates_the_boxes_come_from() -> None:
    candidates = np.random.default_rng(0).random((40, 7)).astype(np.float32)
    found = boxes_of(candidates, 0.1)
    picked = candidates[found.picks]
    assert np.allclose(found.corners[:, :2], picked[:, :2] - picked[:, 2:4] / 2)
    assert np.allclose(found.scores, (picked[:, 4:5] * picked[:, 5:]).max(1))


def test_gaps_weigh_scores_as_much_as_pixels() -> None:
    reference = np.zeros((1, 3, 6), np.float32)
    reference[..., :4], reference[..., 4:] = 200, 0.9
    found = reference.copy()
    found[0, 0, 0] += 20  # a tenth of the largest figure
    found[0, 1, 4] -= 0.9
    gap, same = candidate_gaps(reference, found)
    assert np.allclose(gap, [[0.1, 0.9, 0]]) and same.tolist() == [[True, False, True]]
