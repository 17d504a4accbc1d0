"""Figures worked out from units (blocks of a scene, groups of samples, images), and how sure they are: intervals by a bootstrap.

A bootstrap over whole units (blocks of a scene, groups of samples, images), since what lies close together is not independent
(Efron and Tibshirani 1993). Both networks are drawn with the same picks, so what moves both, such as a hard block, does not
widen their difference. The interval is the estimate and its bootstrap standard error times Student's t, with the standard error
corrected by sqrt(n / (n - 1)): the bootstrap's own percentiles are too narrow where units are few (Hesterberg 2015). It reaches
further to the side on which few units lie far out, by the transformation that takes the skewness out of Student's t (Hall 1992), as
the jackknife tells it. One unit alone gives no interval, nor do few units that are all right (or as far from the teacher as each
other): that none of three blocks holds an error says little of the fourth.

No interval knows of a kind of unit that was never drawn: where one block in ten goes wrong, 43 of 100 sets of eight hold none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.scenes.splits import FEW_UNITS

Floats = npt.NDArray[np.float64]
DRAWS = 1000
LEAST_DEFINED = 0.5
"""Share of the draws in which a figure must be defined for an interval to be told."""
SPREADLESS = 1e-12
"""A standard error below it is rounding."""
CHUNK_VALUES = 20_000_000
"""Numbers held at a time while drawing."""
LEFT_OUT = 200
"""Lots that units are dealt to at most, each left out once: what they tell of skewness does not depend on how many they are."""
MOST_SKEW = 0.35
"""The transformation is flat beyond it, and intervals grow without holding the true figure more often (simulated)."""
Z975 = 1.959964
COUNTLESS = 1_000_000_000
"""Stands for more units than there can be."""


@dataclass(frozen=True)
class Statistic:
    """What a metric is worked out from, unit by unit.

    Attributes:
        units: how many there are (B).
        of: how often each unit is counted, (D, B), to the metric of each of the D draws, (D,); NaN where it is not defined.
        low, high: the range that the metric cannot leave.
        undefined: why it may have no value, in words.
    """

    units: int
    of: Callable[[Floats], Floats]
    low: float = -math.inf
    high: float = math.inf
    undefined: str = "nothing to judge by"

    @property
    def value(self) -> float | None:
        """The metric over all units once; None where it is not defined."""
        if not self.units:
            return None
        found = float(self.of(np.ones((1, self.units)))[0])
        return found if math.isfinite(found) else None


def of_sums(
    parts: npt.ArrayLike,
    function: Callable[[Floats], Floats],
    low: float = -math.inf,
    high: float = math.inf,
    undefined: str = "nothing to judge by",
) -> Statistic:
    """A metric of sums over units: ``parts`` (B, ...) holds each unit's share, ``function`` takes sums (D, ...) to (D,)."""
    values = np.asarray(parts, dtype=np.float64)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))

    def of(counts: Floats) -> Floats:
        return function((counts @ flat).reshape(len(counts), *values.shape[1:]))

    return Statistic(len(values), of, low, high, undefined)


def ratio(top: npt.ArrayLike, bottom: npt.ArrayLike, low: float = 0.0, high: float = 1.0) -> Statistic:
    """One sum over another, both by unit (B,); not defined where the lower one is 0."""
    return of_sums(np.stack([np.asarray(top, float), np.asarray(bottom, float)], 1), _divided, low, high)


def median(values: npt.ArrayLike) -> Statistic:
    """The median of one value per unit, e.g. of the turns of a measurement."""
    order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
    ranked = np.asarray(values, dtype=np.float64)[order]

    def of(counts: Floats) -> Floats:
        below = counts[:, order].cumsum(1)
        half = below[:, -1:] / 2
        return np.asarray(
            (ranked[(below < half).sum(1)] + ranked[(below <= half).sum(1).clip(max=len(ranked) - 1)]) / 2
        )

    return Statistic(len(ranked), of, 0.0)


def _divided(sums: Floats) -> Floats:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


@dataclass(frozen=True)
class Units:
    """What intervals draw whole: what it is called ("blocks"), and the names of the units that entries belong to, of any shape."""

    word: str
    of: npt.NDArray[Any]

    def at(self, index: Any) -> Units:
        """Those of some entries."""
        return Units(self.word, self.of[index])


@dataclass(frozen=True)
class Statistics:
    """Everything one network is judged by on one set of data, by the metric's name; ``unit`` is what is drawn ("blocks")."""

    unit: str
    of: Mapping[str, Statistic] = field(default_factory=dict)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(_Record):
    """A figure with its 95 % interval and standard error; None where it is not defined or has no spread."""

    value: float | None
    interval: tuple[float, float] | None = None
    se: float | None = Field(default=None, ge=0)


def estimate(statistic: Statistic, seed: int = 0) -> Estimate:
    """One network's figure with its interval."""
    (drawn,), (without,) = drawn_values((statistic,), seed), values_without((statistic,))
    return estimate_of(statistic.value, drawn, without, statistic.units, statistic.low, statistic.high)


def estimate_of(value: float | None, drawn: Floats, without: Floats, units: int, low: float, high: float) -> Estimate:
    """A value with its interval, from what it is in every draw, and with each lot of units left out once."""
    known = drawn[np.isfinite(drawn)]
    if value is None or units < 2 or len(known) < LEAST_DEFINED * len(drawn):
        return Estimate(value=value)
    se = float(known.std()) * math.sqrt(units / (units - 1))
    # Draws in which it is not defined say that it rests on few of the units: about as many as the logarithm of their share.
    few = units < FEW_UNITS or len(known) < len(drawn)
    if se < SPREADLESS and few and math.isfinite(high):
        return Estimate(value=value, se=0)
    t, skew = student_t(units - 1), min(max(_skewness(without), -MOST_SKEW), MOST_SKEW)
    ends = value - se * _unskewed(t, skew), value - se * _unskewed(-t, skew)
    return Estimate(value=value, interval=(max(low, ends[0]), min(high, ends[1])), se=se)


def _skewness(without: Floats) -> float:
    """Skewness of an estimate, that of its lots over the root of their number, from its values with each left out once."""
    known = without[np.isfinite(without)]
    away = known.mean() - known if len(known) else known
    spread = math.sqrt(float((away**2).mean())) if len(known) else 0.0
    return 0.0 if spread < SPREADLESS else float(((away / spread) ** 3).mean()) / math.sqrt(len(without))


def _unskewed(t: float, skew: float) -> float:
    """What stands for a quantile ``t`` of Student's distribution where the estimate has a ``skew`` (Hall 1992)."""
    return t if abs(skew) < 1e-6 else float(np.cbrt(1 + skew * (t - skew / 6)) - 1) * 3 / skew


def drawn_values(statistics: tuple[Statistic, ...], seed: int) -> list[Floats]:
    """Each statistic in every draw, (DRAWS,), all with the same picks."""
    units = statistics[0].units
    rng = np.random.default_rng([seed, units])
    return _chunked(statistics, DRAWS, lambda start, stop: _counts(rng, stop - start, units))


def values_without(statistics: tuple[Statistic, ...]) -> list[Floats]:
    """Each statistic with every lot of units left out once, (lots,); every unit is a lot where there are not too many."""
    units = statistics[0].units
    lots = min(units, LEFT_OUT)
    lot = np.arange(units) % max(lots, 1)
    return _chunked(statistics, lots, lambda start, stop: (lot != np.arange(start, stop)[:, None]).astype(np.float64))


def _chunked(statistics: tuple[Statistic, ...], rows: int, counts: Callable[[int, int], Floats]) -> list[Floats]:
    """Each statistic for ``rows`` rows of counts, which are made a part at a time; NaN where there is no second unit."""
    units = statistics[0].units
    if units < 2:
        return [np.full(1, np.nan) for _ in statistics]
    found: list[list[Floats]] = [[] for _ in statistics]
    step = max(1, min(rows, CHUNK_VALUES // units))
    for start in range(0, rows, step):
        part = counts(start, min(start + step, rows))
        for values, statistic in zip(found, statistics, strict=True):
            values.append(statistic.of(part))
    return [np.concatenate(values) for values in found]


def _counts(rng: np.random.Generator, draws: int, units: int) -> Floats:
    """How often each unit is picked, (draws, units), when as many are picked as there are."""
    picks = rng.integers(0, units, (draws, units)) + np.arange(draws)[:, None] * units
    return np.bincount(picks.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float64)


def more_units(found: Estimate, units: int, limit: float) -> int | None:
    """About how many more units would put the limit outside the interval, were the value to stay; None where that cannot be told,
    :data:`COUNTLESS` where no number would.

    The interval's half on the limit's side falls with the square root of the number of units, and with Student's t. Of few that do
    not differ, enough are needed to tell.
    """
    if found.value is None or found.se is None:
        return None
    if found.interval is None:
        return FEW_UNITS - units if units < FEW_UNITS else None
    room = abs(found.value - limit)
    reach = found.interval[1] - found.value if limit > found.value else found.value - found.interval[0]
    se = max(found.se, reach / student_t(max(units - 1, 1)))
    if units * (Z975 * se) ** 2 >= COUNTLESS * room**2:
        return COUNTLESS
    wanted = max(units + 1, math.ceil(units * (Z975 * se / room) ** 2))
    while student_t(wanted - 1) * se * math.sqrt(units / wanted) >= room:
        wanted += 1
    return wanted - units


@lru_cache(maxsize=4096)
def student_t(freedom: int) -> float:
    """The 97.5 % point of Student's t; exact for 1 and 2 degrees of freedom, else by Fisher's expansion (within 1 %)."""
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, n = Z975, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + sum(term / n**power for power, term in enumerate(terms, 1)))


def units_of(names: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], int]:
    """Number of the unit that each entry belongs to, in order of name, and how many units there are."""
    found, index = np.unique(names, return_inverse=True)
    return index.reshape(names.shape), len(found)


def summed(values: npt.ArrayLike, unit: npt.NDArray[np.intp], units: int) -> Floats:
    """Values (N,) or (N, F) added up by unit, (units,) or (units, F)."""
    table = np.asarray(values, dtype=np.float64)
    out = np.zeros((units, *table.shape[1:]))
    np.add.at(out, unit, table)
    return out
