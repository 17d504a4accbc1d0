"""Maps on a finer grid: bilinear, with pixel centres in line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.runtimes.session import Array


def enlarged(maps: Array, edge: int) -> npt.NDArray[np.float32]:
    """Maps (..., h, w) on ``edge`` x ``edge`` pixels, as SAM enlarges its masks; every map by itself."""
    found = maps.astype(np.float32)
    for axis in (-2, -1):
        length = found.shape[axis]
        low, high, share = neighbours(length, edge)
        share = share[:, None] if axis == -2 else share
        found = np.take(found, low, axis) * (1 - share) + np.take(found, high, axis) * share
    return found


def neighbours(length: int, edge: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Between which two of ``length`` places each of ``edge`` pixels lies along an axis, and the second's share: (edge,) each."""
    at = np.clip((np.arange(edge) + 0.5) * length / edge - 0.5, 0, length - 1)
    low = at.astype(np.intp)
    return low, np.minimum(low + 1, length - 1), (at - low).astype(np.float32)
