"""Metrics against hand-worked values and invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsedge.data.metrics import accuracy, confusion_matrix, iou, kappa, kappa_interval, summary


def test_worked_example() -> None:
    matrix = np.array([[20, 5], [10, 15]])
    assert kappa(matrix) == pytest.approx(0.4)
    assert accuracy(matrix) == pytest.approx(0.7)
    assert iou(matrix).tolist() == pytest.approx([20 / 35, 15 / 30])


def test_ignored_labels_and_nodata_predictions_do_not_count() -> None:
    matrix = confusion_matrix(np.array([0, 1, 255, 1, 7]), np.array([0, 255, 1, 1, 1]), 2, ignore=7)
    assert matrix.tolist() == [[1, 0], [0, 1]]


@given(hnp.arrays(np.uint8, (50,), elements=st.integers(0, 2)), hnp.arrays(np.uint8, (50,), elements=st.integers(0, 2)))
def test_kappa_is_symmetric_and_one_only_on_agreement(a: np.ndarray, b: np.ndarray) -> None:
    m = confusion_matrix(a, b, 3)
    assert kappa(m) == pytest.approx(kappa(m.T))
    assert kappa(m) <= 1
    if len(set(a.tolist())) > 1:
        assert kappa(confusion_matrix(a, a, 3)) == pytest.approx(1)


def test_summary_names_absent_classes_none() -> None:
    s = summary(np.array([[5, 0, 0], [1, 4, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert s["iou"]["c"] is None and s["n"] == 10


def test_block_bootstrap_holds_the_estimate() -> None:
    rng = np.random.default_rng(0)
    blocks = [np.array([[30, 5], [6, 20]]) + rng.integers(0, 4, (2, 2)) for _ in range(20)]
    low, high = kappa_interval(blocks)
    assert low < kappa(np.sum(blocks, axis=0)) < high
