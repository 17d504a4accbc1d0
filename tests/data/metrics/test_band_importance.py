"""Shapley values and losses of bands against formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rsedge.data.metrics.importance import Bands, loss_without, shapley, shapley_orders
from rsedge.data.metrics.statistics import Statistic, estimate, ratio

UNITS, BRINGS = 12, (0.3, 0.2, 0.0, 0.1)


def figure(seen: Bands) -> Statistic:
    """Share of what is right: each band brings its own, and the first two bring 0.2 more together."""
    rng = np.random.default_rng(0)
    spread = rng.normal(0, 0.01, (UNITS, len(BRINGS)))
    right = sum(BRINGS[i] + spread[:, i] for i in seen) + 0.2 * ({0, 1} <= seen)
    return ratio(np.full(UNITS, right), np.ones(UNITS))


@pytest.mark.parametrize("orders", [16, 64])
def test_shapley_values_are_each_bands_own_and_its_half_of_what_two_bring(orders: int) -> None:
    """With 16 orders all 16 subsets are looked at; drawing orders of such a game in reversed pairs leaves no error either."""
    values, errors = shapley(figure, 4, orders, seed=0)
    found = [v.value for v in values]
    assert found == pytest.approx([0.4, 0.3, 0.0, 0.1], abs=0.01)
    assert sum(found) == pytest.approx(figure(frozenset(range(4))).value - figure(frozenset()).value)
    assert errors == [0.0] * 4


def test_drawn_orders_come_near_the_exact_values_and_say_how_near() -> None:
    def three(seen: Bands) -> Statistic:
        """Six bands of which any three are needed: no pair of orders tells it alone."""
        return ratio(np.full(UNITS, float(len(seen & {0, 1, 2}) >= 2 and 3 in seen)), np.ones(UNITS))

    exact = [v.value for v in shapley(three, 6, 100, 0)[0]]
    drawn, errors = shapley(three, 6, 10, 0)
    away = [abs(a.value - b) for a, b in zip(drawn, exact, strict=True)]
    assert max(errors) > 0 and all(d <= 3.5 * e + 1e-9 for d, e in zip(away, errors, strict=True))
    assert [v.value for v in shapley(three, 6, 10, 0)[0]] == [v.value for v in drawn], "the same seed draws the same"


def test_orders_come_in_reversed_pairs() -> None:
    orders = shapley_orders(5, 3, seed=1)
    assert len(orders) == 4 and all(sorted(o) == list(range(5)) for o in orders)
    assert orders[1] == orders[0][::-1] and orders[3] == orders[2][::-1]


def test_a_loss_has_an_interval_over_units() -> None:
    lost = estimate(loss_without(figure, 0, frozenset(range(4))))
    assert lost.value == pytest.approx(0.5, abs=0.01) and lost.interval is not None
    assert lost.interval[0] < lost.value < lost.interval[1] and math.isfinite(lost.se or math.nan)
