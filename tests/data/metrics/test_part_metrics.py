"""Figures of parts against the teacher's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.metrics.figures import statistics_of
from rsedge.data.metrics.parts import part_comparison


def agreement(found: list[dict[str, np.ndarray]], reference: list[dict[str, np.ndarray]], outputs: list[str]) -> float:
    groups = np.arange(len(reference)).astype(str)
    value = statistics_of(part_comparison(found, reference, outputs, groups))["agreement"].value
    assert value is not None
    return value


@given(st.integers(0, 100), st.floats(0, 0.9))
def test_noise_takes_its_share_of_the_variance(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    reference = [{"a": rng.normal(size=(1, 4000))} for _ in range(6)]
    found = [{"a": one["a"] + size * rng.normal(size=(1, 4000))} for one in reference]
    # Six samples' own mean takes a sixth of the variance.
    assert agreement(found, reference, ["a"]) == pytest.approx(max(0, 1 - size**2 * 6 / 5), abs=0.06)


def test_what_all_samples_share_earns_nothing() -> None:
    """A network that gives the mean of all answers, whatever it is asked, agrees in nothing."""
    rng = np.random.default_rng(0)
    shared = 100 * rng.normal(size=(1, 50))
    reference = [{"a": shared + rng.normal(size=(1, 50))} for _ in range(8)]
    mean = sum(one["a"] for one in reference) / 8
    assert agreement([{"a": mean}] * 8, reference, ["a"]) == pytest.approx(0, abs=1e-9)


def test_each_output_counts_alike_whatever_its_unit() -> None:
    rng = np.random.default_rng(0)
    reference = [{"large": 1e3 * rng.normal(size=(1, 9)), "small": 1e-3 * rng.normal(size=(1, 9))} for _ in range(8)]
    wrong = [{**one, "small": np.zeros((1, 9))} for one in reference]
    assert agreement(wrong, reference, ["large", "small"]) == pytest.approx(0.5, abs=0.1)


def test_an_output_that_never_varies_is_held_against_its_own_size() -> None:
    reference = [{"a": np.full((1, 3), 2.0)}] * 4
    assert agreement(reference, reference, ["a"]) == 1
    assert agreement([{"a": np.zeros((1, 3))}] * 4, reference, ["a"]) == 0
