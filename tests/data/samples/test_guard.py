"""The guard of tiles of one image: no tile that teaches touches a held-out one, across corners too, or nothing is taken away."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.samples.guard import GUARD, LEAST_KEPT, beside, guarded


def cells_of(rows: int, columns: int, images: int = 1) -> np.ndarray:
    return np.array([(i, r, c) for i in range(images) for r in range(rows) for c in range(columns)], np.intp)


def test_corners_are_beside_and_other_images_are_not() -> None:
    cells = cells_of(3, 3, images=2)
    corner = (cells == (0, 0, 0)).all(1)
    assert cells[beside(cells, corner)].tolist() == [[0, 0, 1], [0, 1, 0], [0, 1, 1]]


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 20), st.integers(1, 2), st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_no_two_roles_touch_or_nothing_is_taken(seed: int, rows: int, columns: int, images: int, share: float) -> None:
    rng, cells = np.random.default_rng(seed), cells_of(rows, columns, images)
    roles = rng.choice(["test", "selection", "train"], len(cells), p=[share / 3, share / 3, 1 - share * 2 / 3])
    found = guarded(roles, cells)
    if found is None:
        return
    assert (found[roles == "test"] == "test").all() and (found == roles)[found != GUARD].all()
    for role in ("selection", "train"):
        assert (found == role).sum() >= LEAST_KEPT * (roles == role).sum()
    for i in np.flatnonzero(np.isin(found, ("test", "selection"))):
        near = (cells[:, 0] == cells[i, 0]) & (np.abs(cells - cells[i]).max(1) <= 1)
        assert set(found[near]) <= {found[i], GUARD}


def test_an_image_too_small_keeps_its_tiles() -> None:
    roles = np.array(["test", "train", "train", "train"])
    assert guarded(roles, cells_of(2, 2)) is None
