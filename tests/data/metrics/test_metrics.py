"""Metrics against hand-worked values and invariants."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsedge.data.errors import RequestError
from rsedge.data.metrics.confusion import (
    Confusion,
    accuracy,
    block_tables,
    confusion_matrix,
    iou,
    kappa,
    map_likeness,
)
from rsedge.data.metrics.figures import record_of


def record(tables: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    return record_of(Confusion("map", tables, names))


def test_worked_example() -> None:
    matrix = np.array([[20, 5], [10, 15]])
    assert kappa(matrix) == pytest.approx(0.4)
    assert accuracy(matrix) == pytest.approx(0.7)
    assert iou(matrix).tolist() == pytest.approx([20 / 35, 15 / 30])


def test_ignored_labels_and_nodata_predictions_do_not_count() -> None:
    matrix = confusion_matrix(np.array([0, 1, 1, 7]), np.array([0, 255, 1, 1]), 2, ignore=7)
    assert matrix.tolist() == [[1, 0], [0, 1]]


@given(st.integers(2, 200), st.integers(0, 3), st.booleans())
def test_what_is_no_class_is_refused_by_value_never_dropped(strange: int, place: int, in_labels: bool) -> None:
    labels, predictions = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    (labels if in_labels else predictions)[place] = strange
    with pytest.raises(
        RequestError, match=rf"^{'labels' if in_labels else 'predictions'} hold .*\b{strange} \(1 times"
    ):
        confusion_matrix(labels, predictions, 2)


def test_one_class_on_both_sides_has_no_kappa_and_nothing_has_no_figure() -> None:
    alone = record(np.array([[[9, 0], [0, 0]]]), ("a", "b"))
    assert alone["kappa"] is None and alone["accuracy"] == 1.0 and alone["miou"] == 1.0
    nothing = record(np.zeros((1, 2, 2), int), ("a", "b"))
    assert nothing["kappa"] is nothing["accuracy"] is nothing["miou"] is None
    same = np.zeros((4, 4), np.uint8)
    assert map_likeness(same, same, 2) == 1.0  # Two maps of one class are alike, although kappa is not defined.
    assert map_likeness(same, np.full_like(same, 255), 2) == 1.0


@given(st.integers(0, 2**31))
def test_blocks_add_up_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, found, unit = rng.integers(0, 3, 60), rng.integers(0, 3, 60), rng.integers(0, 5, 60)
    assert (block_tables(labels, found, unit, 5, 3).sum(0) == confusion_matrix(labels, found, 3)).all()


@given(hnp.arrays(np.uint8, (50,), elements=st.integers(0, 2)), hnp.arrays(np.uint8, (50,), elements=st.integers(0, 2)))
def test_kappa_is_symmetric_and_one_only_on_agreement(a: np.ndarray, b: np.ndarray) -> None:
    m = confusion_matrix(a, b, 3)
    value, turned = kappa(m), kappa(m.T)
    assert value == pytest.approx(turned) and (value is None or value <= 1)
    if len(set(a.tolist())) > 1:
        assert kappa(confusion_matrix(a, a, 3)) == pytest.approx(1)


def test_summary_names_absent_classes_none() -> None:
    s = record(np.array([[[5, 0, 0], [1, 4, 0], [0, 0, 0]]]), ("a", "b", "c"))
    assert s["iou"]["c"] is None and s["n"] == 10


def test_block_bootstrap_holds_the_estimate() -> None:
    rng = np.random.default_rng(0)
    blocks = np.stack([np.array([[30, 5], [6, 20]]) + rng.integers(0, 4, (2, 2)) for _ in range(20)])
    found = record(blocks, ("a", "b"))
    low, high = found["kappa_interval"]
    assert low < found["kappa"] < high and found["blocks"] == 20
    assert record(blocks[:1], ("a", "b"))["kappa_interval"] is None
