"""What sets INT8 ranges: plain pixels of calibration blocks alone, from every scene and group, dark and bright."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.calibration import CalibrationScene, plain_tiles, spread_over_groups
from rsedge.data.errors import RequestError
from rsedge.data.scenes.splits import block_split

FRACTIONS = {"calibration": 0.2, "selection": 0.2, "test": 0.2}


def scene(seed: int, guard: int, block: int, base: int = 1000) -> CalibrationScene:
    """Each block has a value of its own; what is not calibration is far brighter than any of them."""
    split = block_split((96, 112), block, FRACTIONS, seed, guard)
    rows, cols = (np.arange(n) // block for n in split.codes.shape)
    values = base + rows[:, None] * 20 + cols[None]
    allowed = split.mask("calibration")
    dn = np.where(allowed, values, 60000).astype(np.uint16)
    return CalibrationScene(np.stack([dn, dn]), allowed, np.ones(dn.shape, bool), block)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(0, 4), st.integers(12, 24), st.integers(1, 12), st.integers(20, 70))
def test_no_pixel_of_another_role_enters_a_tile(seed: int, guard: int, block: int, count: int, tile: int) -> None:
    made = scene(seed, guard, block)
    tiles = plain_tiles([made], count, tile, seed)
    assert tiles.shape == (count, 2, tile, tile) and tiles.dtype == np.uint16
    assert set(np.unique(tiles).tolist()) <= set(np.unique(made.dn[:, made.allowed]).tolist())


def test_every_scene_and_every_brightness_is_drawn_from() -> None:
    scenes = [scene(3, 2, 16, base) for base in (1000, 5000, 9000)]
    tiles = plain_tiles(scenes, 60, 32, 0)
    bases = tiles[:, 0, 0, 0] // 4000
    assert np.bincount(bases).tolist() == [20, 20, 20]
    first = np.unique(tiles[bases == 0])
    assert set(first.tolist()) == set(np.unique(scenes[0].dn[:, scenes[0].allowed]).tolist())


def test_a_draw_is_the_same_again_and_another_draw_is_another() -> None:
    first, again, other = (plain_tiles([scene(3, 2, 12)], 3, 32, 0, draw) for draw in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_blocks_that_guards_leave_nothing_of_are_refused() -> None:
    nothing = CalibrationScene(np.zeros((1, 32, 32), np.uint16), np.zeros((32, 32), bool), np.ones((32, 32), bool), 16)
    with pytest.raises(RequestError, match=r"data\.block larger"):
        plain_tiles([nothing], 4, 16, 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 9))
def test_groups_are_drawn_from_evenly(names: list[str], wanted: int, seed: int) -> None:
    groups = np.array(names)
    found = spread_over_groups(groups, wanted, np.random.default_rng(seed))
    assert len(found) == min(wanted, len(names)) == len(set(found.tolist()))
    taken = {n: names[:].count(n) for n in set(names)}
    drawn = {n: int((groups[found] == n).sum()) for n in taken}
    for n in taken:
        for m in taken:
            assert drawn[n] <= drawn[m] + 1 or drawn[m] == taken[m]
