"""Metrics of vectors against values worked out by hand, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.metrics.figures import record_of
from rsedge.data.metrics.samples import (
    Kind,
    ValueComparison,
    agreement,
    cosines,
    kind_of,
    likeness,
    r2_statistic,
    same_nearest,
    sample_comparisons,
)

GROUPS = np.array(["a", "a", "b", "b"])


def judged(kind: Kind, found: list[list[float]], labels: object, names: tuple[str, ...]) -> dict[str, object]:
    values = np.array(found, np.float32)
    known = None if labels is None else np.array(labels)
    return record_of(*sample_comparisons(kind, values, values, known, names, GROUPS[: len(found)]))


def test_kinds() -> None:
    assert kind_of("classification", 3, np.zeros(4, np.int64)) == "classes"
    assert kind_of("classification", 1, np.zeros(4, np.int64)) == "labels"
    assert kind_of("classification", 3, np.zeros((4, 3))) == "labels"
    assert kind_of("regression", 1, None) == "values" and kind_of("embedding", 8, None) == "embedding"


def test_classes() -> None:
    found = judged("classes", [[2, 0], [0, 2], [0, 2], [2, 0]], [0, 1, 0, -1], ("x", "y"))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)  # both classes: one hit, one miss or false alarm
    assert found["confusion"] == [[1, 1], [0, 1]] and found["n"] == 3


def test_one_logit_is_yes_or_no() -> None:
    found = judged("labels", [[3], [-1], [2], [-4]], [1, 1, 0, 0], ("crop",))
    assert found["accuracy"] == 0.5 and found["f1"] == pytest.approx(0.5) and found["kappa"] == pytest.approx(0)


def test_several_labels() -> None:
    found = judged("labels", [[1, -1], [1, 1]], [[1, 0], [0, 1]], ("a", "b"))
    assert found["f1"] == pytest.approx(0.8) and found["accuracy"] == 0.75


def test_values() -> None:
    found = judged("values", [[1], [2], [3], [4]], [1, 2, 3, 8], ("moisture",))
    assert found["rmse"] == pytest.approx(2) and found["mae"] == pytest.approx(1)
    assert found["r2"] == pytest.approx(1 - 16 / 29)


def test_embeddings() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(50, 8)).astype(np.float32)
    groups = np.arange(50).astype(str)
    found = record_of(*sample_comparisons("embedding", teacher * 3, teacher, None, ("e",) * 8, groups))
    assert found["cosine"] == pytest.approx(1) and found["top1"] == 1
    assert cosines(-teacher, teacher) == pytest.approx(-1)
    assert same_nearest(teacher, teacher[::-1].copy(), teacher).mean() < 0.1


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RequestError, match=r"labels \(2, 3\) for outputs \(2, 2\)"):
        judged("classes", [[1, 0], [0, 1]], np.zeros((2, 3)), ("a", "b"))
    with pytest.raises(RequestError, match="do not fit outputs"):
        judged("values", [[1, 0], [0, 1]], [1, 2], ("a", "b"))
    assert judged("classes", [[1, 0]], None, ("a", "b")) == {}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["classes", "labels", "values", "embedding"]), st.integers(0, 99))
def test_likeness_is_one_for_the_same_and_falls_with_noise(kind: Kind, seed: int) -> None:
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=(200, 5)).astype(np.float32) * 2
    noise = rng.normal(size=teacher.shape).astype(np.float32)
    assert agreement(kind, teacher, teacher) == pytest.approx(1) and likeness(kind, teacher, teacher) == pytest.approx(
        1
    )
    near, far = (likeness(kind, teacher + s * noise, teacher) for s in (0.1, 2.0))
    assert 1 > near > far >= 0


def test_r2_of_nothing_to_explain_is_none() -> None:
    constant = ValueComparison("values", np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32), GROUPS[:3])
    assert r2_statistic(constant).value is None


def test_labels_that_are_fractions_are_refused_and_nan_is_unknown() -> None:
    with pytest.raises(RequestError, match=r"0, 1 or -1 \(unknown\); found 0\.7"):
        judged("labels", [[1, -1], [1, 1]], np.array([[1, 0.7], [0, 1]]), ("a", "b"))
    found = judged("labels", [[1, -1], [1, 1]], np.array([[1, np.nan], [0, 1]]), ("a", "b"))
    assert found["accuracy"] == pytest.approx(2 / 3)
