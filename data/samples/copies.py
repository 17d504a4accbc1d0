"""Samples that hold the same values: copies of one another, which must not stand on two sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.intp]
DISTINCT = 5
"""Different values that a sample with pixels or times must have; a vector two. Empty and flat ones are no copies."""
FIRST_LOOK = 64
"""Values of a sample among which so many different ones are mostly found."""


def copy_numbers(values: npt.NDArray[np.generic]) -> Index:
    """(N,) numbers of what N samples (N, *axes) hold: copies of one another have the same number, all others one of their own."""
    first: dict[bytes, int] = {}
    found = np.arange(len(values))
    for i in np.flatnonzero(varied(values)).tolist():
        found[i] = first.setdefault(hashlib.sha256(np.ascontiguousarray(values[i]).data).digest(), i)
    return found


def varied(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """(N,) which samples (N, *axes) have different values enough to tell copies by."""
    least = 2 if values.ndim == 2 else DISTINCT
    return np.array([_distinct(one.reshape(-1), least) for one in values], bool)


def _distinct(values: npt.NDArray[np.generic], least: int) -> bool:
    some = values[:: max(1, len(values) // FIRST_LOOK)]
    return len(np.unique(some)) >= least or len(np.unique(values)) >= least


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> Index:
    """(count,) of things some of which belong together: the number of the first of those that hang together by pairs."""
    parent = np.arange(count)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for own, other in pairs:
        first, second = sorted((root(own), root(other)))
        parent[second] = first
    return np.array([root(i) for i in range(count)], np.intp)


def joined(groups: npt.NDArray[np.str_], copies: Index) -> npt.NDArray[np.str_]:
    """(N,) groups that hold copies of one another under the name of the first of them, whatever lies between."""
    names, index = np.unique(groups, return_inverse=True)
    first = connected(len(names), zip(index.tolist(), index[copies].tolist(), strict=True))
    return np.asarray(names[first[index]])


def repeated(roles: npt.NDArray[np.str_], copies: Index) -> npt.NDArray[np.bool_]:
    """(N,) which samples a more sheltered role (test, then selection) holds again."""
    chosen, judged = np.isin(copies, copies[roles == "selection"]), np.isin(copies, copies[roles == "test"])
    return np.asarray(((roles == "train") & (chosen | judged)) | ((roles == "selection") & judged))
