"""Losses are means over views: scaled by what the teacher gives over the training set, never by what a batch happens to hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsedge.compress.distill.loss_table import LogitLoss
from rsedge.compress.distill.losses import Given, LossChoice, class_weights
from rsedge.compress.distill.objective import Objective, loss_of
from rsedge.compress.distill.statistics import MOST_VIEWS, OutputStatistics, statistics_of
from rsedge.compress.distill.teacher_outputs import LABELS
from rsedge.data.bands import BandSpec, InputSpec

SPEC = InputSpec(bands=(BandSpec(name="red", nodata=0),), tile=16)
COUNT = 40


class _Kept:
    """A source whose outputs are arrays."""

    spec = SPEC

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs, self.read = outputs, 0
        self.count = len(next(iter(outputs.values())))

    def batch(self, indices: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        self.read += len(indices)
        rows = list(indices)
        return np.zeros((len(rows), 1, 16, 16), np.float32), {n: a[rows] for n, a in self.outputs.items()}


def outputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Maps, vectors, lines of places and tokens, in units of their own; one channel of ``vector`` never changes."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(300, 1e-3, (COUNT, 5))
    vector[:, 2] = 7.0
    return {
        "map": rng.normal(rng.normal(size=(3, 1, 1)), [[[1.0]], [[2.0]], [[0.1]]], (COUNT, 3, 4, 4)),
        "vector": vector,
        "line": rng.normal(5, 2, (COUNT, 4, 6)),
        "logits": rng.normal(0, 3, (COUNT, 6, 4)),
    }


def test_statistics_are_numpys_over_views_and_places() -> None:
    given_ = outputs()
    found = statistics_of(_Kept(**given_))
    rows = {
        "map": np.moveaxis(given_["map"], 1, -1).reshape(-1, 3),
        "vector": given_["vector"],
        "line": np.moveaxis(given_["line"], 1, -1).reshape(-1, 4),
        "logits": given_["logits"].reshape(-1, 4),
    }
    assert set(found) == set(rows)
    for name, values in rows.items():
        one = found[name]
        np.testing.assert_allclose(one.mean, values.mean(0), rtol=1e-9)
        np.testing.assert_allclose(one.std, values.std(0), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(one.shares, np.bincount(values.argmax(1), minlength=values.shape[1]) / len(values))
        np.testing.assert_allclose(one.square, np.square(values).sum(1).mean(), rtol=1e-9)
    np.testing.assert_allclose(found["map"].variance, given_["map"].var(), rtol=1e-9)
    np.testing.assert_allclose(found["map"].column_variance, rows["map"].var(0).mean(), rtol=1e-9)


def test_a_channel_that_never_changes_is_divided_by_one() -> None:
    found = statistics_of(_Kept(**outputs()))["vector"]
    assert found.scales[2] == 1.0 and found.scales[0] == pytest.approx(1e-3, rel=0.5)
    flat = OutputStatistics((7.0, 7.0), (0.0, 0.0), (1.0, 0.0))
    assert flat.variance == flat.column_variance == 1.0


def test_large_sets_are_read_in_part_and_labels_not_at_all() -> None:
    many = _Kept(
        logits=np.random.default_rng(0).normal(size=(3 * MOST_VIEWS, 2)), **{LABELS: np.zeros((3 * MOST_VIEWS, 1))}
    )
    assert set(statistics_of(many)) == {"logits"} and many.read == MOST_VIEWS


def test_weights_of_classes_have_mean_one_over_the_training_set() -> None:
    shares = (0.7, 0.27, 0.03, 0.0)
    weights = class_weights(OutputStatistics((0.0,) * 4, (1.0,) * 4, shares), 0.25).numpy()
    assert float(np.dot(shares, weights)) == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx((0.7 / 0.03) ** 0.25)
    assert np.isfinite(weights).all()


Loss = Callable[[Tensor, Tensor, OutputStatistics], Tensor]


def of(kind: LogitLoss, **more: Any) -> Loss:
    return lambda student, teacher, known: Objective(kind, **more)(student, teacher, statistics=known)


def tap(name: str, **options: float) -> Loss:
    choice = LossChoice(name, 1.0, options)
    return lambda student, teacher, known: loss_of(choice, student, teacher, Given(statistics=known), {})


LOSSES: dict[str, tuple[tuple[int, ...], Loss]] = {
    "classes": ((3,), of("classes", temperature=2.0)),
    "balanced maps": ((3, 2, 2), of("classes", temperature=2.0, balance=0.25)),
    "dkd": ((3, 2, 2), of("classes", losses=(LossChoice("dkd"),))),
    "cwd": ((3, 2, 2), of("classes", losses=(LossChoice("cwd"),))),
    "labels": ((3,), of("labels")),
    "values": ((3,), of("values")),
    "embedding": ((3,), of("embedding")),
    "image": ((3, 2, 2), of("image")),
    "outputs": ((3, 2, 2), of("outputs")),
    "features": ((3,), tap("mse")),
    "feature maps": ((3, 2, 2), tap("mse")),
    "structure": ((3, 4, 4), tap("structure", nodes=2)),
    "attention": ((3, 2, 2), tap("attention")),
    "relations": ((3, 5), tap("relations")),
}
KNOWN = OutputStatistics((0.5, -1.0, 200.0), (2.0, 1e-2, 30.0), (0.6, 0.37, 0.03))


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 2**20), offset=st.sampled_from([0.0, 1.0, 1e3]))
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_views(name: str, count: int, seed: int, offset: float) -> None:
    shape, loss = LOSSES[name]
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(count, *shape, generator=draw) + offset for _ in range(2))
    whole = loss(student, teacher, KNOWN)
    alone = torch.stack([loss(student[i : i + 1], teacher[i : i + 1], KNOWN) for i in range(count)])
    assert torch.isfinite(alone).all()
    torch.testing.assert_close(whole, alone.mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["values", "image", "outputs", "features", "feature maps"])
def test_a_flat_view_weighs_no_more_than_any_other(name: str) -> None:
    """The teacher gives the same value everywhere on it; the student is off by as much as on any other view."""
    shape, loss = LOSSES[name]
    flat, lively = torch.full((1, *shape), 2.0), 2 + torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    ratio = float(loss(flat + 0.1, flat, KNOWN) / loss(lively + 0.1, lively, KNOWN))
    assert 0.02 < ratio < 50
