"""Regions as torchvision cuts them, and instances of an image by parts that are functions of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import RequestError
from rsedge.data.metrics.figures import statistics_of
from rsedge.runtimes.session import Array
from rsedge.runtimes.wholes.instances import MAPS, PromptedInstances, around, filled, levels_of, surely
from rsedge.runtimes.wholes.regions import cut, level_of, shares
from rsedge.runtimes.wholes.table import whole_of
from tests.runtimes.wholes.test_wholes import F32, Numpy, tensors

EDGE = 256
ODD = np.array(
    [
        [10, 20, 40, 60], [0, 0, 256, 256], [-30, -30, 20, 20], [200, 240, 300, 290], [5, 5, 6, 250], [3.3, 7.7, 251.2, 9.1],
        [50, 50, 50, 50], [250, 250, 256, 256], [255, 255, 256, 256], [100, 20, 90, 60],
    ],
    dtype=np.float32,
)  # fmt: skip
"""Whole, over the edge, long and thin, without area, turned round."""


def pyramid() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(5, EDGE // s, EDGE // s)).astype(np.float32) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("size", [7, 14])
def test_regions_are_those_of_torchvision(size: int) -> None:
    torch = pytest.importorskip("torch")
    align = pytest.importorskip("torchvision").ops.roi_align
    rng = np.random.default_rng(1)
    corners = rng.uniform(-20, EDGE + 20, (60, 2, 2)).astype(np.float32)
    boxes = np.concatenate((np.concatenate((corners.min(1), corners.max(1)), 1), ODD[:-1]))
    maps = pyramid()
    found = cut(maps, boxes, size)
    levels = level_of(boxes, 4)
    assert set(levels) == {0, 1, 2}  # up to 256 pixels: the coarsest map has none
    for i, (box, level) in enumerate(zip(boxes, levels, strict=True)):
        roi = torch.tensor([[0, *box.tolist()]])
        wanted = align(torch.from_numpy(maps[level][None]), roi, size, 0.25 / 2**level, -1, aligned=True)
        np.testing.assert_allclose(found[i], wanted[0].numpy(), atol=2e-5, err_msg=str(box))


def test_a_map_goes_to_boxes_up_to_twice_its_edge() -> None:
    edges = np.array([1, 56, 111, 113, 223, 225, 447, 449, 2000], np.float32)
    boxes = np.stack((0 * edges, 0 * edges, edges, edges), 1)
    assert level_of(boxes, 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_cells_count_places_and_what_is_outside_counts_zero() -> None:
    found = shares(np.array([0.5, -9.0], np.float32), np.array([4.5, -5.0], np.float32), 2, 8)
    # Two cells of two places with two samples each: at 1, 2 and at 3, 4.
    np.testing.assert_allclose(found[0], [[0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0, 0, 0]])
    assert not found[1].any()


BOXES = np.array([[8, 8, 40, 40], [9, 8, 41, 40], [60, 60, 90, 100], [0, 0, 0, 0]], np.float32)


ANCHORS = 64**2 + 32**2 + 16**2 + 8**2 + 4**2
PLACES = [5, 64**2 - 1, 64**2, 64**2 + 3]
"""Of the boxes among the anchors, one at each place: two on the finest level, two on the next."""


def parts(scores: Array, kept: dict[str, Any] | None = None) -> dict[str, Numpy]:
    """Four boxes among the anchors; regions that are classified by ``scores`` (3, classes + 1), boxes as they were proposed."""
    seen = {} if kept is None else kept

    def classify(regions: Array, rois: Array) -> tuple[Array, Array]:
        seen["rois"] = rois
        return scores[None], np.repeat(rois[:, :, None], 2, 2)

    def decode(embedding: Array, prompts: Array) -> tuple[Array, Array]:
        return prompts.reshape(1, 2, 1, 1, 1) * np.ones((1, 2, 1, 3, 3), F32), prompts

    maps = [m[None] for m in pyramid()]
    proposed, likely = np.zeros((1, ANCHORS, 4), np.float32), np.zeros((1, ANCHORS), np.float32)
    proposed[0, PLACES], likely[0, PLACES] = BOXES, [0.9, 0.8, 0.7, 0.6]
    return {
        "encoder": Numpy(
            tensors(image=(1, 1, 2, 2)), ("embedding", "features"), lambda image: (image, image)
        ),
        "proposer": Numpy(
            tensors(features=(1, 1, 2, 2)), (*MAPS, "proposals", "likely"), lambda features: (*maps, proposed, likely)
        ),
        "classifier": Numpy(
            tensors(regions=(1, 3, 5, 7, 7), rois=(1, 3, 4)), ("scores", "boxes"), classify
        ),
        "prompter": Numpy(
            tensors(regions=(1, 2, 5, 14, 14)), ("prompts",), lambda regions: regions.mean((2, 3, 4))[..., None]
        ),
        "decoder": Numpy(tensors(embedding=(1, 1, 2, 2), prompts=(1, 2, 1)), ("masks", "quality"), decode),
    }  # fmt: skip


SCORES = np.array([[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.9, 0.05, 0.05]], np.float32)
IMAGE = {"image": np.ones((1, 2, 2), np.float32)}


def whole(**settings: float) -> PromptedInstances:
    found = whole_of("prompted-instances", list(parts(SCORES)), settings)
    assert isinstance(found, PromptedInstances)
    return found


def test_proposals_suppress_their_level_and_instances_their_class() -> None:
    seen: dict[str, Any] = {}
    graphs = parts(SCORES, seen)
    assert whole().inputs(graphs) == {"image": ((1, 2, 2), F32)}
    found = whole().run(graphs, IMAGE)
    # The second proposal of the first level goes, the one without area too: two are left, an empty row is filled up.
    np.testing.assert_array_equal(seen["rois"][0], [*BOXES[[0, 2]], np.zeros(4)])
    np.testing.assert_allclose(found["scores"], [0.8, 0.6])
    assert found["classes"].tolist() == [1, 0]
    np.testing.assert_array_equal(found["boxes"], BOXES[[0, 2]])
    assert found["masks"].shape == (2, 3, 3) and found["quality"].shape == (2, 1)
    regions = cut(pyramid(), BOXES[[0, 2]], 14).mean((1, 2, 3))
    np.testing.assert_allclose(found["masks"][:, 0, 0], regions, rtol=1e-6)


def test_levels_are_told_by_the_maps_and_give_their_likeliest() -> None:
    levels = levels_of([np.zeros((1, *edge)) for edge in ((4, 6), (2, 3))], 2 * (24 + 6 + 2))
    assert np.bincount(levels).tolist() == [48, 12, 4]
    boxes = np.zeros((64, 4), np.float32)
    boxes[:, 2:] = 1
    boxes += np.arange(64, dtype=np.float32)[:, None] * 10
    likely = np.linspace(0.1, 0.9, 64).astype(np.float32)
    kept = whole(per_level=2)._proposals(boxes, likely, levels, 8)
    assert kept[:, 0].tolist() == [630, 620, 590, 580, 470, 460, 0, 0]


def test_a_threshold_leaves_rows_empty() -> None:
    found = whole(score=0.7).run(parts(SCORES), IMAGE)
    assert found["scores"][0] == np.float32(0.8) and found["scores"][1] == 0
    assert not found["boxes"][1].any()


def test_instances_are_judged_by_those_of_their_class_and_place() -> None:
    square = np.full((2, 4, 4), -1.0, np.float32)
    square[0, :2, :2] = 1
    square[1, 2:, 2:] = 1
    one = {
        "scores": np.array([0.9, 0.8]), "classes": np.array([0, 1]), "masks": square,
        "boxes": np.array([[0, 0, 2, 2], [2, 2, 4, 4]], np.float32),
    }  # fmt: skip
    turned = {name: value[::-1] for name, value in one.items()}
    other = one | {"classes": np.array([1, 1])}
    missed = one | {"scores": np.array([0.9, 0.0])}
    none = one | {"scores": np.zeros(2)}
    cases = [(one, 1.0), (turned, 1.0), (missed, 0.5), (none, 0.0)]
    for found, expected in cases:
        statistics = statistics_of(*whole().comparisons([found], [one], np.array(["a"])))
        assert statistics["agreement"].value == pytest.approx(expected), expected
    # One instance is another class: it is missing, and one too many is there.
    assert statistics_of(*whole().comparisons([other], [one], np.array(["a"])))["agreement"].value == pytest.approx(
        1 / 3
    )


def test_queries_are_judged_by_class_and_mask() -> None:
    """Two queries, two classes; the second query's mask is surer, the first query has two likely classes."""
    masks = np.full((1, 2, 1, 4, 4), -5.0, np.float32)
    masks[0, 0, 0, :2, :3] = 1.0
    masks[0, 1, 0, 3, 3] = 9.0
    scores = np.array([[[0.5, 0.4, 0.1], [0.45, 0.05, 0.5]]], np.float32)
    graphs = {
        "encoder": Numpy(tensors(image=(1, 1, 8, 8)), ("embedding", "features"), lambda image: (image, image)),
        "prompter": Numpy(tensors(features=(1, 1, 8, 8)), ("scores", "prompts"), lambda features: (scores, scores)),
        "decoder": Numpy(
            tensors(embedding=(1, 1, 8, 8), prompts=(1, 2, 3)), ("masks", "quality"),
            lambda embedding, prompts: (masks, np.array([[[0.1], [0.2]]], np.float32)),
        ),
    }  # fmt: skip
    image = {"image": np.ones((1, 8, 8), np.float32)}
    whole = whole_of("queried-instances", list(graphs), {})
    assert whole.inputs(graphs) == {"image": ((1, 8, 8), F32)}
    found = whole.run(graphs, image)
    sure = [1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-9.0))]
    np.testing.assert_allclose(found["scores"], [0.45 * sure[1], 0.5 * sure[0]], rtol=1e-5)
    assert found["classes"].tolist() == [0, 0]
    assert found["boxes"].tolist() == [[6, 6, 8, 8], [0, 0, 6, 4]]
    assert found["masks"].shape == (2, 4, 4) and found["masks"][0, 3, 3] == 9
    np.testing.assert_allclose(found["quality"], [[0.2], [0.1]])
    few = whole_of("queried-instances", list(graphs), {"score": 0.4}).run(graphs, image)
    assert few["scores"][0] > 0.4 and few["scores"][1] == 0 and not few["masks"][1].any()


def test_empty_masks_are_not_sure_and_have_no_box() -> None:
    masks = np.full((2, 3, 3), -1000.0, np.float32)
    masks[1, 1, 2] = 2
    assert surely(masks).tolist() == pytest.approx([0, 1 / (1 + np.exp(-2))], abs=1e-5)
    assert around(masks > 0).tolist() == [[0, 0, 0, 0], [2, 1, 3, 2]]


def test_parts_of_other_kinds_are_refused() -> None:
    graphs = parts(SCORES)
    with pytest.raises(
        RequestError,
        match="the whole takes encoder, proposer, classifier, prompter, decoder, in this order; found encoder",
    ):
        whole_of("prompted-instances", ["encoder"], {})
    turned = ["proposer", "encoder", "classifier", "prompter", "decoder"]
    with pytest.raises(RequestError, match=r"parts\.proposer: is the encoder and must give 'embedding'"):
        whole_of("prompted-instances", turned, {}).inputs(graphs)
    with pytest.raises(RequestError, match="overlap"):
        whole(overlap=2.0)


def test_rows_are_filled_up() -> None:
    assert filled(np.ones((1, 2)), 3).tolist() == [[1, 1], [0, 0], [0, 0]]
