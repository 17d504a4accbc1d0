"""Samples that are nearly copies: images flipped, turned, shifted a little, noisy, in another scale; series and vectors rounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import Layout
from rsedge.data.samples.copies import connected, varied
from rsedge.data.samples.near_images import LEAST_EDGE, near_images
from rsedge.data.samples.near_vectors import near_vectors

Index = npt.NDArray[np.intp]


def near_numbers(
    values: npt.NDArray[np.generic], layout: Layout, fills: Sequence[float | None], copies: Index
) -> Index:
    """(N,) numbers of samples (N, *axes of ``layout``): equal and near copies have the same, that of the first of them.

    Args:
        fills: of each band, the value that says that nothing is known, or None.
        copies: :func:`~rsedge.data.samples.copies.copy_numbers` of the values.
    """
    once = np.unique(copies)
    once = once[varied(values[once])]
    pairs = once[_pairs(values[once], layout, fills)]
    equal = enumerate(copies.tolist())
    return connected(len(values), [*equal, *((int(one), int(other)) for one, other in pairs)])


def _pairs(values: npt.NDArray[np.generic], layout: Layout, fills: Sequence[float | None]) -> Index:
    if not len(values):
        return np.empty((0, 2), np.intp)
    if "H" in layout and min(values.shape[-2:]) >= LEAST_EDGE:
        times = values.shape[1] if "T" in layout else 1
        return near_images(values.reshape(len(values), -1, *values.shape[-2:]), [*fills] * times)
    shape, axis = values.shape[1:], layout.index("C")
    gone = np.array([np.nan if fill is None else fill for fill in fills])
    wide = np.broadcast_to(gone.reshape(-1, *[1] * (len(shape) - axis - 1)), shape)
    return near_vectors(values.reshape(len(values), -1), wide.reshape(-1))
