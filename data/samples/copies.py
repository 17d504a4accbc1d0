"""Samples that hold the same values: copies of one another, which must not stand on two sides of a split."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

DISTINCT = 5
"""Different values that a sample with pixels or times must have; a vector two. Empty and flat ones are no copies."""


def copy_numbers(values: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """(N,) numbers of what N samples (N, *axes) hold: copies of one another have the same number, all others one of their own."""
    least = 2 if values.ndim == 2 else DISTINCT
    first: dict[bytes, int] = {}
    found = np.arange(len(values))
    for i, one in enumerate(values):
        if len(np.unique(one)) >= least:
            found[i] = first.setdefault(hashlib.sha256(np.ascontiguousarray(one).data).digest(), i)
    return found


def joined(groups: npt.NDArray[np.str_], copies: npt.NDArray[np.intp]) -> npt.NDArray[np.str_]:
    """(N,) groups that hold copies of one another under the name of the first of them, whatever lies between."""
    names, index = np.unique(groups, return_inverse=True)
    parent = np.arange(len(names))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for own, other in zip(index, index[copies], strict=True):
        first, second = sorted((root(int(own)), root(int(other))))
        parent[second] = first
    return np.asarray(names[[root(int(i)) for i in index]])


def repeated(roles: npt.NDArray[np.str_], copies: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """(N,) which samples a more sheltered role (test, then selection) holds again."""
    chosen, judged = np.isin(copies, copies[roles == "selection"]), np.isin(copies, copies[roles == "test"])
    return np.asarray(((roles == "train") & (chosen | judged)) | ((roles == "selection") & judged))
