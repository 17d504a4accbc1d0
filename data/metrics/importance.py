"""How much each band matters to a network: what is lost without it, and its Shapley value, both over units that a bootstrap draws.

A figure of a network that sees some of its bands is a :class:`Statistic`; sums and differences of such figures are statistics too,
so that the interval of a loss is drawn over the same blocks, or groups, as any other interval here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rsedge.data.metrics.statistics import Floats, Statistic

Bands = frozenset[int]
Figure = Callable[[Bands], Statistic]
"""Numbers of the bands that are seen -> a figure of the network that sees no others; more is better."""


def combined(terms: Sequence[tuple[float, Statistic]]) -> Statistic:
    """A weighted sum of figures over the same units."""
    first = terms[0][1]

    def of(counts: Floats) -> Floats:
        return np.asarray(sum(weight * statistic.of(counts) for weight, statistic in terms))

    return Statistic(first.units, of, undefined=first.undefined)


def loss_without(figure: Figure, band: int, seen: Bands) -> Statistic:
    """How much a network that sees ``seen`` loses where one of these bands is taken away."""
    return combined([(1.0, figure(seen)), (-1.0, figure(seen - {band}))])


def shapley_orders(bands: int, orders: int, seed: int) -> list[tuple[int, ...]]:
    """Orders in which bands join, drawn in pairs of one order and its reverse (Mitchell et al. 2022); an even number."""
    rng = np.random.default_rng([seed, 41])
    drawn = [tuple(int(i) for i in rng.permutation(bands)) for _ in range(-(-orders // 2))]
    return [order for one in drawn for order in (one, one[::-1])]


def shapley(figure: Figure, bands: int, orders: int, seed: int) -> tuple[list[Statistic], list[float]]:
    """Shapley values by band, in all the figure of all bands less that of none, and the standard error of drawing orders.

    Where all subsets are no more than the orders would ask for, the values are exact (weights of Shapley 1953) and the error is 0;
    else the mean over random orders (Castro, Gomez & Tejada 2009).
    """
    if 2**bands <= orders * (bands - 1) + 2:
        return [_exact(figure, band, bands) for band in range(bands)], [0.0] * bands
    drawn = shapley_orders(bands, orders, seed)
    terms: list[list[tuple[float, Statistic]]] = [[] for _ in range(bands)]
    for order in drawn:
        for place, band in enumerate(order):
            before = frozenset(order[:place])
            terms[band].append((1.0, loss_without(figure, band, before | {band})))
    share = 1 / len(drawn)
    return [combined([(share, s) for _, s in one]) for one in terms], [_error_of_orders(one) for one in terms]


def _exact(figure: Figure, band: int, bands: int) -> Statistic:
    others = [b for b in range(bands) if b != band]
    terms = []
    for number in range(2 ** len(others)):
        seen = frozenset(b for place, b in enumerate(others) if number >> place & 1)
        weight = math.factorial(len(seen)) * math.factorial(bands - len(seen) - 1) / math.factorial(bands)
        terms += [(weight, figure(seen | {band})), (-weight, figure(seen))]
    return combined(terms)


def _error_of_orders(terms: Sequence[tuple[float, Statistic]]) -> float:
    """Standard error of the mean over pairs of orders, by what one band brings in each; NaN of a single pair."""
    brings = np.array([s.value if s.value is not None else np.nan for _, s in terms])
    pairs = brings.reshape(-1, 2).mean(1)
    return float(pairs.std(ddof=1) / math.sqrt(len(pairs))) if len(pairs) > 1 else math.nan
