"""Labels beside the teacher: in the form that losses take, of every kind of task, and refused where there are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.samples.views import SampleViews, SampleViewSettings
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.splits import block_split
from rsedge.tasks.finer import FinerTask
from rsedge.tasks.samples import SampleTask
from rsedge.tasks.scene_data import SplitScene
from rsedge.tasks.scenes import SceneTask

SPEC = InputSpec(
    bands=(BandSpec(name="red", scale=1e-4, mean=0.2, std=0.1), BandSpec(name="nir", scale=1e-4, mean=0.3, std=0.2)),
    tile=16, quantity="toa_reflectance",
)  # fmt: skip
INDEX = np.array([4, 2, 3])


def samples_task(kind: type[SampleTask], labels: np.ndarray | None, does: str, **known: Any) -> Any:
    made: Any = kind.__new__(kind)
    made.spec, made.classes, made.finer = SPEC, ("red", "nir"), 2
    made.samples = SimpleNamespace(labels=labels, name="x", classes=("red", "nir"))
    if kind is SampleTask:
        made.kind = does
    dn = np.random.default_rng(0).integers(1, 5000, (3, 2, 16, 16)).astype(np.uint16)
    views = SampleViews(dn, SPEC, SampleViewSettings(**known), 1)
    made.views_of = lambda _index, _seed: views
    return made, views


@pytest.mark.parametrize(
    ("does", "labels"),
    [
        ("classes", np.array([9, 9, 1, 0, -1])),
        ("labels", np.array([[1, 0], [1, 1], [0, np.nan], [1, 0], [0, 0]])),
        ("values", np.array([3.0, 1.5, np.nan, 2.5, 7.0])),
    ],
)
def test_of_samples_those_of_the_one_that_a_view_shows(does: str, labels: np.ndarray) -> None:
    made, views = samples_task(SampleTask, labels, does, mix=0.5)
    found, blends = made.labels_of(INDEX, 1), 0
    for i in range(30):
        view, label = views.made(i), found(i)
        wanted = (
            np.full(np.shape(label), np.nan) if view.sample is None else labels[INDEX[view.sample]].reshape(label.shape)
        )
        blends += view.sample is None
        assert label.dtype == np.float32
        np.testing.assert_array_equal(label, wanted.astype(np.float32))
    assert 0 < blends < 30


def test_a_finer_image_is_known_of_plain_views_alone_and_in_the_networks_units() -> None:
    labels = np.random.default_rng(1).uniform(0.05, 0.6, (5, 2, 32, 32)).astype(np.float32)
    made, views = samples_task(FinerTask, labels, "image", plain=0.5)
    found, plain = made.labels_of(INDEX, 1), 0
    for i in range(20):
        view, label = views.made(i), found(i)
        plain += view.plain
        if view.plain:
            np.testing.assert_allclose(made.bands.physical(label), labels[INDEX[view.sample]], rtol=1e-5)
        else:
            assert np.isnan(label).all()
    assert 0 < plain < 20


def test_embeddings_and_samples_without_labels_are_refused() -> None:
    for made, _ in (samples_task(SampleTask, None, "classes"), samples_task(SampleTask, np.zeros(5), "embedding")):
        with pytest.raises(RequestError, match=r"steps\.distill\.labels: there are no labels to learn from"):
            made.labels_of(INDEX, 1)


@pytest.mark.parametrize("labelled", [False, True])
def test_scenes_need_labels_where_they_train(labelled: bool) -> None:
    split = block_split((96, 96), 32, {"test": 0.3}, seed=0)
    labels = np.where(split.mask("train"), 1 if labelled else 255, 0).astype(np.uint8)
    image = np.full((2, 96, 96), 0.2, np.float32)
    scene = Scene("a", image, np.ones((96, 96), bool), ("red", "nir"), 10.0, "x", labels=labels)
    made: Any = SceneTask.__new__(SceneTask)
    made.spec, made.classes = SPEC, ("a", "b")
    made.split_scenes = [SplitScene(scene, split, ("train", "test"))]
    plain = {"plain": 1.0, "gsd_m": (10.0, 10.0)}
    section = SimpleNamespace(model_dump=lambda: plain)
    made.recipe = SimpleNamespace(
        scenes=SimpleNamespace(augment=section, clouds=SimpleNamespace(model_dump=dict), block=32)
    )
    if not labelled:
        with pytest.raises(RequestError, match="no scene that trains has labels"):
            made.view_labels(0)
        return
    found = made.view_labels(0)(3)
    assert (found == 1).mean() > 0.9 and (found != 0).all()
