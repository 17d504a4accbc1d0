"""What an interval says that it draws is what it draws, in every task over samples."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.samples.samples import Samples
from rsedge.models.zoo import Task
from rsedge.recipe.schema import Recipe
from rsedge.tasks.registry import TASKS
from rsedge.tasks.samples import SampleJudge, SampleTask

COUNT, EDGE = 12, 16
MAPS = np.zeros((COUNT, EDGE, EDGE), np.uint8)
BOX = np.array([[0, 0, 4, 4, 0]], np.float32)
ANSWERS: dict[Task, tuple[np.ndarray[Any, Any], dict[str, Any]]] = {
    "segmentation": (MAPS, {"labels": MAPS}),
    "classification": (np.ones((COUNT, 2), np.float32), {"labels": np.zeros(COUNT, np.int64)}),
    "embedding": (np.ones((COUNT, 2), np.float32), {}),
    "features": (np.ones((COUNT, 2, 4, 4), np.float32), {}),
    "regression": (np.ones((COUNT, 2), np.float32), {"labels": np.ones((COUNT, 2), np.float32)}),
    "detection": (np.ones((COUNT, 5, 6), np.float32), {"boxes": (BOX,) * COUNT, "classes": ("a", "b")}),
    "captioning": (np.ones((COUNT, 3, 2), np.float32), {}),
    "super-resolution": (
        np.ones((COUNT, 2, EDGE, EDGE), np.float32),
        {"labels": np.ones((COUNT, 2, EDGE, EDGE), np.float32), "classes": ("a", "b")},
    ),
}
"""Answers of a network, by what it does, and what is known of the samples."""
GROUPS, BLOCKS = np.array(["north", "south", "east"]).repeat(4), np.array(list("0011") * 3)
DRAWN: list[tuple[str, dict[str, Any], int]] = [
    ("samples", {}, COUNT),
    ("groups", {"group": GROUPS}, 3),
    ("blocks", {"group": GROUPS, "block": BLOCKS}, 6),
]


def task_over_samples(does: Task, known: dict[str, Any]) -> SampleTask:
    module, _, name = TASKS[does].of_samples.partition(":")
    bands = tuple(BandSpec(name=n, scale=1e-4) for n in "ab")
    spec = InputSpec(bands=bands, tile=EDGE, dtype="float32")
    recipe = Recipe.model_validate({
        "name": "t", "teacher": {"name": "t"}, "data": {"samples": {"source": "x.npz"}}, "steps": ({"distill": {}},),
        "targets": ("openvino-cpu-f32",),
    })  # fmt: skip
    made: SampleTask = getattr(importlib.import_module(f"rsedge.tasks.{module}"), name)(recipe, spec, ("a", "b"), does)
    values = np.random.default_rng(0).normal(size=(COUNT, *spec.shape)).astype(np.float32)
    made.samples = Samples("x", values, ("a", "b"), "CHW", "0", **known)
    return made


@pytest.mark.parametrize(("word", "known", "count"), DRAWN, ids=[word for word, *_ in DRAWN])
@pytest.mark.parametrize("does", TASKS)
def test_every_figure_is_drawn_over_what_its_unit_says(
    does: Task, word: str, known: dict[str, Any], count: int
) -> None:
    found, labels = ANSWERS[does]
    task = task_over_samples(does, {**labels, **known})
    judge = SampleJudge(True, None, 0, task, np.arange(COUNT))
    drawn = judge.statistics(found, found)
    assert drawn.unit == word
    assert {name: one.units for name, one in drawn.of.items()} == dict.fromkeys(drawn.of, count)
    # By the teacher's metrics a run says early which gates there is no figure for.
    assert drawn.of.keys() - judge.metrics(found, found).keys() == {"agreement"}
