"""Class maps of samples: what is kept, how it is judged, and which data go with which teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.figures import record_of
from rsedge.data.samples.samples import Samples
from rsedge.recipe.schema import Recipe
from rsedge.tasks.maps import MapTask
from rsedge.tasks.registry import make_task

SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), layout="TCHW", frames=2, tile=16, dtype="float32")
CLASSES = ("no change", "change")


def recipe(data: dict[str, Any] | None = None) -> Recipe:
    values = {
        "name": "t",
        "teacher": {
            "name": "torchgeo:fcsiamdiff/resnet18",
            "input": {"bands": ["red", "nir"]},
            "classes": list(CLASSES),
        },
        "data": data or {"samples": {"source": "x.npz"}, "test": {"fraction": 0.5}},
        "steps": [{"distill": {}}],
        "targets": ["openvino-cpu-f32"],
    }
    return Recipe.model_validate_json(json.dumps(values))


def task(labels: np.ndarray | None, groups: tuple[str, ...] = ("a", "b", "c", "d")) -> MapTask:
    values = np.random.default_rng(0).normal(size=(4, *SPEC.shape)).astype(np.float32)
    made = MapTask(recipe(), SPEC, CLASSES, "segmentation")
    made.samples = Samples("x", values, ("red", "nir"), "TCHW", "0", labels=labels, group=np.array(groups))
    return made


maps = hnp.arrays(np.uint8, (2, 16, 16), elements=st.sampled_from([0, 1, 255]))


@settings(max_examples=30, deadline=None)
@given(maps, maps)
def test_f1_is_that_of_change_over_pixels_with_a_label_and_an_answer(labels: np.ndarray, found: np.ndarray) -> None:
    made = task(np.concatenate([labels, labels]))
    record = record_of(*made.comparisons_of(np.arange(2), found, found))
    counted = (labels != 255) & (found != 255)
    told, truth = (found == 1) & counted, (labels == 1) & counted
    size = told.sum() + truth.sum()
    assert record["n"] == counted.sum()
    if size:
        assert record["f1"] == pytest.approx(2 * (told & truth).sum() / size)
        assert record["iou"]["change"] == pytest.approx((told & truth).sum() / (told | truth).sum())
    assert 0 <= made.agreement(found, labels) <= 1 and made.agreement(found, found) == 1


def test_nodata_of_either_date_is_no_class() -> None:
    made = task(None)
    logits = np.zeros((1, 2, 16, 16), np.float32)
    logits[:, 1, :8] = 1
    valid = np.ones((1, 16, 16), np.uint8)
    valid[0, 0] = 0
    kept = made.keep({"logits": logits, "valid": valid})
    assert (kept[0] == 255).all() and (kept[1:8] == 1).all() and (kept[8:] == 0).all()
    assert not made.labelled and record_of(*made.comparisons_of(np.arange(4), np.stack([kept] * 4), kept)) == {}
    assert made.expected_shape() == (1, 2, 16, 16) and made.kind == "classes"


def test_labels_follow_their_views() -> None:
    """Where a view shows one sample, its labels lie where the marked pixels went; where it shows two, nothing is known."""
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[:, :3, :5], labels[:, 10:, 12:] = 1, 255
    made = task(labels)
    made.samples = replace(
        made.samples, values=np.broadcast_to((labels == 1)[:, None, None] * 10.0, (4, *SPEC.shape)).astype(np.float32)
    )
    index = np.arange(4)
    views, found = made.views_of(index, 5), made.labels_of(index, 5)
    kinds = set()
    for i in range(40):
        view, label = views.made(i), found(i)
        assert label.dtype == np.float32 and label.shape == (16, 16)
        kinds.add((view.sample is None, view.plain))
        if view.sample is None:
            assert np.isnan(label).all()
        else:
            marked = np.rint(view.dn[0, 0] / 10).clip(0, 1)
            assert np.array_equal(marked[label >= 0], label[label >= 0])
            assert (label < 0).sum() == 6 * 4 and (label == 1).sum() == 15
    assert kinds == {(True, False), (False, False), (False, True)}
    with pytest.raises(RequestError, match=r"steps\.distill\.labels: there are no labels to learn from: 'x' has none"):
        task(None).labels_of(index, 5)


def test_wrong_labels_are_said_before_any_work(tmp_path: Path) -> None:
    context: Any = None
    with pytest.raises(RequestError, match="a class map per sample is needed"):
        task(np.zeros(4, np.int64)).data_stage(context)
    with pytest.raises(RequestError, match=r"has class 2, the teacher only 2 \(no change, change\)"):
        task(np.full((4, 16, 16), 2, np.uint8)).data_stage(context)


def test_data_go_with_what_the_teacher_takes_and_gives() -> None:
    scenes = recipe({"train": [{"source": "ukis-sentinel2"}], "test": {"source": "ukis-sentinel2"}})
    with pytest.raises(RequestError, match=r"gives maps of 2 dates; name its samples under data\.samples"):
        make_task(scenes, SPEC, CLASSES, "segmentation")
    image = SPEC.model_copy(update={"layout": "CHW", "frames": 1})
    with pytest.raises(RequestError, match="gives one vector per sample"):
        make_task(scenes, image, CLASSES, "classification")
    assert isinstance(make_task(recipe(), image, CLASSES, "segmentation"), MapTask)
    assert not isinstance(make_task(recipe(), image, CLASSES, "classification"), MapTask)
