"""Vectors (series, places, features) that are copies up to rounding or little noise.

How near two must be to be copies depends on the set: places on a map lie close to each other by chance, series of a year never do.
It is taken as the distance at which, from how densely the samples lie and in how many directions, next to no pair is expected.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Vectors = npt.NDArray[np.float64]

LARGEST = 0.02
"""Root mean square of the difference of two copies at most, in the standard deviations of the values over the set."""
EXPECTED = 0.01
"""Pairs that may lie as near by chance in the whole set."""
NEIGHBOURS = 32
"""The distance to this neighbour tells how densely samples lie: of one sample as many copies are not taken for that."""
LOOKED_AT = 1000
"""Samples that this is taken from."""
DIRECTIONS = 8
"""Those in which samples spread most; pairs are looked for along them."""
CHUNK = 1 << 24


def near_vectors(values: npt.NDArray[np.generic], fills: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """(n, 2) numbers of vectors that are near copies.

    Args:
        values: (N, D).
        fills: (D,) for each value, the one that says that nothing is known, or NaN.
    """
    found = _standardised(values.astype(np.float64), fills)
    if len(found) < 2 or not found.shape[1]:
        return np.empty((0, 2), np.intp)
    within = _within(found)
    low = found @ _directions(found)
    pairs = cKDTree(low).query_pairs(within * (1 + 1e-9), output_type="ndarray").astype(np.intp)
    near = [np.zeros(0, bool)]
    step = max(1, CHUNK // found.shape[1])
    for start in range(0, len(pairs), step):
        one, other = pairs[start : start + step].T
        near.append(np.linalg.norm(found[one] - found[other], axis=1) <= within)
    return np.asarray(pairs[np.concatenate(near)])


def _standardised(values: Vectors, fills: npt.NDArray[np.float64]) -> Vectors:
    """Values about their mean over the set, by their deviation; what is unknown is at the mean, what never varies is left out."""
    gone = ~np.isfinite(values) | (values == fills)
    known = np.maximum((~gone).sum(0), 1)
    values = np.where(gone, 0, values)
    values = np.where(gone, 0, values - values.sum(0) / known)
    deviation = np.sqrt((values**2).sum(0) / known)
    varied = deviation > 1e-9 * np.abs(values).max(0, initial=1e-9)
    return np.asarray(values[:, varied] / deviation[varied])


def _within(found: Vectors) -> float:
    """The distance below which two of (N, D) vectors are copies."""
    count, size = found.shape
    largest = LARGEST * float(np.sqrt(size))
    order = min(NEIGHBOURS, max(count // 16, 1), (count - 1) // 2)
    if order < 1:
        return largest / NEIGHBOURS
    some = np.random.default_rng(0).permutation(count)[:LOOKED_AT]
    power = (found**2).sum(1)
    near, far = [], []
    step = max(1, CHUNK // count)
    for start in range(0, len(some), step):
        part = some[start : start + step]
        apart = np.sqrt(np.maximum(power[part, None] + power - 2 * found[part] @ found.T, 0))
        ranked = np.partition(apart, (order, 2 * order), axis=1)
        near.append(ranked[:, order])
        far.append(ranked[:, 2 * order])
    close, wide = np.maximum(np.concatenate(near), 1e-9), np.maximum(np.concatenate(far), 1e-9)
    spread = float(np.log(wide / close).mean())
    spreads_in = min(float(np.log(2)) / max(spread, 1e-3), float(size))
    # Pairs nearer than t: a sample has order * (t / close) ** spreads_in, each pair is counted from both its ends.
    expected = np.log(count / 2) + np.log(order) + np.log(np.mean((close / close.min()) ** -spreads_in))
    chance = float(close.min() * np.exp((np.log(EXPECTED) - expected) / spreads_in))
    return min(largest, chance)


def _directions(found: Vectors) -> Vectors:
    """(D, <= DIRECTIONS) orthonormal directions of the greatest spread; distances along them are never longer."""
    some = found[np.random.default_rng(1).permutation(len(found))[: 4 * LOOKED_AT]]
    return np.asarray(np.linalg.svd(some, full_matrices=False)[2][:DIRECTIONS].T)
