"""What the values of bands are like: smallest, largest, shares that are saturated or outside of what a sensor delivers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

SATURATED_WARNING = 0.01
SATURATED_LIMIT = 0.5


class BandValues(Record):
    """One band over the valid pixels.

    Attributes:
        count: pixels. minimum, maximum: physical values. saturated: share at the top of the contract's digital numbers, or cut to
            fit into them. clipped: share cut. outside: share outside the contract's ``valid_range``, None without one.
    """

    name: str
    count: int
    minimum: float
    maximum: float
    saturated: float
    clipped: float
    outside: float | None


def band_values(physical: npt.NDArray[Any], spec: InputSpec) -> list[BandValues]:
    """Of physical values (C, N), NaN where missing, before they are cut to the contract's type; of bands that have some."""
    out = []
    for band, given in zip(spec.bands, physical, strict=True):
        row = np.asarray(given[~np.isnan(given)], dtype=np.float64)
        if not row.size:
            continue
        full, clipped = _shares(np.rint((row - band.offset) / band.scale), np.dtype(spec.dtype))
        low, high = band.valid_range or (-math.inf, math.inf)
        outside = float(np.mean((row < low) | (row > high))) if band.valid_range else None
        out.append(BandValues(name=band.name, count=row.size, minimum=float(row.min()), maximum=float(row.max()),
                              saturated=full, clipped=clipped, outside=outside))  # fmt: skip
    return out


def _shares(dn: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> tuple[float, float]:
    """Saturated and clipped shares of unclipped digital numbers."""
    if dtype.kind == "f":
        return 0.0, 0.0
    info = np.iinfo(dtype)
    return float(np.mean((dn >= info.max) | (dn < info.min))), float(np.mean((dn > info.max) | (dn < info.min)))


def joined(parts: Iterable[BandValues]) -> list[BandValues]:
    """Values of several places, per band in the order in which bands are first met."""
    found: dict[str, BandValues] = {}
    for part in parts:
        found[part.name] = _both(found[part.name], part) if part.name in found else part
    return list(found.values())


def _both(a: BandValues, b: BandValues) -> BandValues:
    count = a.count + b.count

    def share(one: float, other: float) -> float:
        return (one * a.count + other * b.count) / count

    outside = None if a.outside is None or b.outside is None else share(a.outside, b.outside)
    return BandValues(
        name=a.name, count=count, minimum=min(a.minimum, b.minimum), maximum=max(a.maximum, b.maximum),
        saturated=share(a.saturated, b.saturated), clipped=share(a.clipped, b.clipped), outside=outside,
    )  # fmt: skip


def saturation(where: str, values: Sequence[BandValues], fix: str, *, flying: bool = False) -> list[str]:
    """Warnings on bands of which more than 1 % is saturated.

    Args:
        fix: what mends it. flying: on board a bright scene may fill the range, so only what was cut is held against the limit.

    Raises:
        RequestError: more than half of a band is.
    """
    lost = [v for v in values if (v.clipped if flying else v.saturated) > SATURATED_LIMIT]
    if lost:
        raise RequestError(f"{where}: saturated in the model's digital numbers: {_saturation_text(lost)}; {fix}")
    some = [v for v in values if v.saturated > SATURATED_WARNING]
    return [f"{where}: saturated in the model's digital numbers: {_saturation_text(some)}; {fix}"] if some else []


def _saturation_text(values: Sequence[BandValues]) -> str:
    parts = (f"{v.saturated:.0%} of '{v.name}' ({v.minimum:g} to {v.maximum:g})" for v in values)
    return ", ".join(parts)
