"""The guard of tiles that were cut from one image: those that touch a held-out tile, across corners too, do not teach or choose."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

GUARD = "guard"
"""The role of what stands between two roles and has none."""
LEAST_KEPT = 0.5
"""Of a role's tiles that must be left for it to give up those of the guard."""
NO_GUARD = (
    "blocks of one image touch where roles meet, with no guard between them: figures may be a little too good; larger blocks or "
    "smaller fractions leave room for it"
)
SHELTER = {"selection": ("test",), "train": ("test", "selection")}
"""What each role keeps away from, in the order in which they give way."""


def beside(cells: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(N,) which tiles are not chosen and touch a chosen one of their image.

    Args:
        cells: (N, 3) image number, row and column of each tile.
    """
    around = [(0, *step) for step in itertools.product((-1, 0, 1), repeat=2)]
    reached = {tuple(cell) for step in around for cell in (cells[chosen] + step).tolist()}
    return np.array([tuple(cell) in reached for cell in cells.tolist()], bool) & ~chosen


def guarded(roles: npt.NDArray[np.str_], cells: npt.NDArray[np.intp]) -> npt.NDArray[np.str_] | None:
    """Roles (N,) with :data:`GUARD` where tiles of two would touch; None where a role would keep less than :data:`LEAST_KEPT`."""
    found = roles.copy()
    for role, sheltered in SHELTER.items():
        own = found == role
        near = own & beside(cells, np.isin(found, sheltered))
        if near.sum() > (1 - LEAST_KEPT) * own.sum():
            return None
        found[near] = GUARD
    return found
