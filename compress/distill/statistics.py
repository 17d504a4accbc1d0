"""What the teacher's outputs are like over the training set: what losses are scaled by.

A loss that divides by what its own batch happens to hold makes one view of flat ground outweigh a thousand others, and is no mean
over views. These figures are taken once, before the first step, and go with the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.compress.distill.teacher_outputs import LABELS, PartOutputs, TeacherOutputs

MOST_VIEWS = 256
"""Of a larger set so many, spread evenly over it: a teacher that is asked anew for each view should not be asked for all twice."""
_LEAST_SHARE = 1e-12
"""Of the mean square: less variance is what float32 leaves of a constant."""


@dataclass(frozen=True)
class OutputStatistics:
    """Of one output, over views and places; C channels.

    Attributes:
        mean, std: per channel (C,).
        shares: how often each channel is the largest (C,); of maps and vectors of classes their frequency to the teacher.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def square(self) -> float:
        """Mean squared length of a vector of channels."""
        return float(np.square(self.mean).sum() + np.square(self.std).sum())

    @property
    def column_variance(self) -> float:
        """Variance of a channel, mean over channels."""
        return _unless_constant(float(np.square(self.std).mean()), float(np.square(self.mean).mean()))

    @property
    def variance(self) -> float:
        """Variance of all values together."""
        return _unless_constant(
            float(np.square(self.std).mean() + np.var(self.mean)), float(np.square(self.mean).mean())
        )

    @property
    def scales(self) -> npt.NDArray[np.float32]:
        """Standard deviation per channel (C,), 1 for those that never change."""
        squares = np.square(self.mean)
        return np.sqrt([_unless_constant(s * s, m) for s, m in zip(self.std, squares, strict=True)], dtype=np.float32)


Statistics = Mapping[str, OutputStatistics]
"""By the name of the output or tap."""


def _unless_constant(variance: float, square: float) -> float:
    """The variance; 1 where it is what rounding leaves of none."""
    return variance if variance > _LEAST_SHARE * square and variance > 0 else 1.0


def statistics_of(source: TeacherOutputs | PartOutputs) -> dict[str, OutputStatistics]:
    """Of every output of the source that has channels; the same for the same source. One view at a time is held."""
    part = isinstance(source, PartOutputs)
    sums: dict[str, _Sums] = {}
    for view in np.unique(np.linspace(0, source.count - 1, min(source.count, MOST_VIEWS)).astype(int)):
        for name, values in source.batch([int(view)])[1].items():
            if values.ndim > 1 and name != LABELS:
                sums.setdefault(name, _Sums()).add(_rows(values, part or name == "logits"))
    return {name: found.statistics() for name, found in sums.items()}


def _rows(values: npt.NDArray[np.floating], tokens: bool) -> npt.NDArray[np.float64]:
    """Values as rows of channels. Three axes are tokens (N, L, C) of an output, else features (N, C, L)."""
    axis = -1 if values.ndim == 3 and tokens else 1
    moved = np.moveaxis(values, axis, -1)
    return moved.reshape(-1, moved.shape[-1]).astype(np.float64)


class _Sums:
    """Moments as they come in, about the first batch's mean, so that large offsets lose no digits."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: npt.NDArray[np.float64]) -> None:
        if not self.count:
            self.centre = rows.mean(0)
            self.first = self.second = self.largest = np.zeros(rows.shape[1])
        self.count += len(rows)
        self.first = self.first + (rows - self.centre).sum(0)
        self.second = self.second + np.square(rows - self.centre).sum(0)
        self.largest = self.largest + np.bincount(rows.argmax(1), minlength=rows.shape[1])

    def statistics(self) -> OutputStatistics:
        shift = self.first / self.count
        std = np.sqrt(np.maximum(self.second / self.count - shift**2, 0.0))
        columns = (self.centre + shift, std, self.largest / self.count)
        mean, spread, shares = (tuple(float(v) for v in column) for column in columns)
        return OutputStatistics(mean, spread, shares)
