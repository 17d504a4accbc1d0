"""What was found of the bands of teacher and student."""

from __future__ import annotations

from typing import ClassVar

from rsedge.cache.stage import StagePart, StageValue
from rsedge.data.metrics.statistics import Estimate


class BandCost(StagePart):
    """One band.

    Attributes:
        loss: of the metric, where the band is taken away.
        agreement: of the network without it with itself.
        shapley: its share of what all bands bring; None where no orders were drawn.
        orders_se: standard error that comes of drawing orders; 0 where all subsets were looked at.
    """

    band: str
    loss: Estimate
    agreement: Estimate
    shapley: Estimate | None = None
    orders_se: float | None = None


class Removal(StagePart):
    """A band taken away for good: how many are ``left``, the metric then, and its loss since all bands were there."""

    band: str
    left: int
    value: float | None
    agreement: float | None
    loss: Estimate


class BandsOfStudent(StageValue):
    """The student's bands; ``metric`` is the figure that is lost, on so many ``inputs`` of selection."""

    stage: ClassVar[str] = "importance"

    metric: str
    inputs: int
    bands: list[BandCost]


class BandsOfTeacher(StageValue):
    """The teacher's bands, as :class:`BandsOfStudent`; ``removals`` in their order, and the bands that the student keeps."""

    stage: ClassVar[str] = "bands"

    metric: str
    inputs: int
    bands: list[BandCost]
    removals: list[Removal]
    kept: tuple[str, ...]
