"""What is known of each metric of a network that a teacher answered beside: its figure, and how far it lies under the teacher's.

Both networks are drawn with the same picks (:mod:`rsedge.data.metrics.statistics`).
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.metrics.statistics import (
    Estimate,
    Floats,
    Statistic,
    Statistics,
    drawn_values,
    estimate,
    estimate_of,
    values_without,
)
from rsedge.data.metrics.table import METRICS
from rsedge.data.scenes.splits import FEW_UNITS

ONE_UNIT = "one {unit} has no spread"
ALIKE = "{n} {unit} that do not differ tell no spread"
FEW_TELL = "it is defined in few of the {n} {unit}, and those do not differ"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Evidence(_Record):
    """What is known of one metric of one network, on data that a teacher answered too."""

    metric: str
    unit: str = Field(description="what the bootstrap draws: blocks, groups, samples or images")
    n: int = Field(ge=0, description="how many of them there are")
    own: Estimate
    teacher: float | None = Field(default=None, description="the teacher's figure, of metrics against labels")
    drop: Estimate | None = Field(default=None, description="how much worse than the teacher, paired")
    relative_drop: Estimate | None = Field(default=None, description="the drop as a share of the teacher's figure")
    note: str | None = Field(default=None, description="why something is missing")


def evidence(own: Statistics, teacher: Statistics, seed: int = 0) -> dict[str, Evidence]:
    """All metrics of a network, and how much worse than the teacher it is in those that have labels to go by.

    Raises:
        ValueError: the two were not worked out over the same units.
    """
    return {
        name: _one(name, own.unit, statistic, teacher.of.get(name), seed)
        for name, statistic in own.of.items()
        if name in METRICS
    }


def _one(name: str, unit: str, own: Statistic, teacher: Statistic | None, seed: int) -> Evidence:
    row, value = METRICS[name], own.value
    note = own.undefined if value is None else None
    if note is None and own.units == 1:
        note = ONE_UNIT.format(unit=unit.removesuffix("s"))
    if teacher is None or "max_drop" not in row.constraints:
        figure = estimate(own, seed)
        return Evidence(metric=name, unit=unit, n=own.units, own=figure, note=note or _alike(figure, own.units, unit))
    if teacher.units != own.units:
        raise ValueError(f"{name}: {own.units} {unit} of one network, {teacher.units} of the other")
    drawn, reference = drawn_values((own, teacher), seed)
    without, reference_without = values_without((own, teacher))
    base = teacher.value
    span = (own.high - own.low) if math.isfinite(own.high - own.low) else math.inf
    absolute = None if value is None or base is None else base - value
    if base is None and note is None:
        note = f"the teacher's: {teacher.undefined}"
    relative = Estimate(value=None)
    if base is not None and base > 0 and absolute is not None:
        shares = (_share_lost(drawn, reference), _share_lost(without, reference_without))
        relative = estimate_of(absolute / base, *shares, own.units, -math.inf, math.inf)
    elif base is not None and note is None:
        note = f"the teacher's {row.title} is {base:.3g}: there is no share of it to lose"
    drop = estimate_of(absolute, reference - drawn, reference_without - without, own.units, -span, span)
    if drop.interval is None:
        relative = Estimate(value=relative.value, se=drop.se)
    return Evidence(
        metric=name, unit=unit, n=own.units, own=estimate_of(value, drawn, without, own.units, own.low, own.high), teacher=base,
        drop=drop, relative_drop=relative, note=note or _alike(drop, own.units, unit),
    )  # fmt: skip


def _share_lost(own: Floats, reference: Floats) -> Floats:
    return np.divide(reference - own, reference, out=np.full(len(own), np.nan), where=reference > 0)


def _alike(found: Estimate, units: int, unit: str) -> str | None:
    """What is to be said of a figure that has no interval because the few units that it rests on do not differ."""
    sound = found.value is None or found.interval is not None or units < 2 or found.se != 0
    return None if sound else (ALIKE if units < FEW_UNITS else FEW_TELL).format(n=units, unit=unit)
