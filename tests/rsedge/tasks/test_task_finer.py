"""Super-resolution's figures: what a network gives that is no number counts against it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.metrics.figures import statistics_of
from rsedge.data.metrics.statistics import Units
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.tasks.finer import FinerTask

SPEC = InputSpec(
    bands=(BandSpec(name="red", scale=1e-4), BandSpec(name="nir", scale=1e-4)), tile=16, quantity="toa_reflectance"
)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> FinerTask:
    made: Any = FinerTask.__new__(FinerTask)
    made.spec, made.classes, made.finer = SPEC, ("red", "nir"), 2
    made.samples, made.units = SimpleNamespace(labels=None), Units("samples", np.arange(4))
    return made


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_network_agrees_with_nothing(task: FinerTask, broken: float) -> None:
    images = np.random.default_rng(0).random((4, 2, 32, 32)).astype(np.float32)
    valid = np.ones((1, 16, 16), np.uint8)
    valid[:, :2] = 0
    good, bad = (
        np.stack([task.keep({LOGITS: one[None], VALID: valid}) for one in of])
        for of in (images, np.full_like(images, broken))
    )
    assert task.agreement(good, good) == pytest.approx(1) and task.agreement(bad, good) == 0
    index = np.arange(4)
    far, same = (statistics_of(*task.comparisons_of(index, found, good)) for found in (bad, good))
    assert far["teacher_psnr"].value < 1 < 90 < same["teacher_psnr"].value
    assert far["agreement"].value == 0


def test_agreement_on_nothing_is_not_defined(task: FinerTask) -> None:
    nothing = np.full((4, 2, 32, 32), np.nan, np.float32)
    assert task.agreement(nothing, nothing) == 0
    assert statistics_of(*task.comparisons_of(np.arange(4), nothing, nothing))["agreement"].value is None
