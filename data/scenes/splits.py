"""Spatially blocked splits: neighbouring pixels never stand on two sides of a split.

Each scene is cut into square blocks; every block belongs to exactly one role. *Train* teaches, *calibration* sets INT8 ranges,
*selection* is what choices look at, *test* is what verdicts rest on and nothing else reads. A guard band (pixels) along block
borders next to another role, across corners too, belongs to none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.paged import sha256_with_arrays

SPLITS = ("train", "calibration", "selection", "test")
HELD_OUT: tuple[Literal["selection", "test"], ...] = ("selection", "test")
NONE = 255
FEW_UNITS = 8
"""Blocks or groups below which figures of a role are too uncertain to be left without a word."""


@dataclass(frozen=True)
class BlockSplit:
    """``codes`` (H, W) uint8: index into :data:`SPLITS`, or 255 for guard pixels."""

    codes: npt.NDArray[np.uint8]
    block: int

    def mask(self, split: str) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) of one role."""
        return self.codes == SPLITS.index(split)

    def counts(self) -> dict[str, int]:
        """Pixels per role."""
        return {name: int((self.codes == i).sum()) for i, name in enumerate(SPLITS)}

    def digest(self) -> str:
        return sha256_with_arrays([self.block, self.codes.shape, self.codes])


def block_split(
    shape: tuple[int, int], block: int, fractions: Mapping[str, float], seed: int, guard: int = 0
) -> BlockSplit:
    """Assigns blocks of ``block`` pixels to the roles at random; ``fractions`` are of the scene's blocks, the rest is trained on.

    Raises:
        RequestError: a role that was asked for gets no block (the scene is too small or the block too large).
    """
    # The order in which roles are dealt: one more role takes its blocks from training, and leaves the others' where they were.
    wanted = {role: fractions.get(role, 0.0) for role in ("test", "calibration", "selection")}
    words = " + ".join(f"{role} ({fraction:g})" for role, fraction in wanted.items())
    if min(wanted.values()) < 0 or sum(wanted.values()) >= 1:
        raise RequestError(f"data: fractions of {words} must leave room for training")
    rows, cols = -(-shape[0] // block), -(-shape[1] // block)
    total = rows * cols
    grid = np.zeros(total, dtype=np.uint8)
    order, taken = np.random.default_rng([seed, rows, cols]).permutation(total), 0
    for role, fraction in wanted.items():
        count = round(total * fraction)
        if fraction > 0 and count == 0:
            raise RequestError(
                f"data: a scene of {shape[0]}x{shape[1]} pixels has {total} blocks of {block}, too few for "
                f"{fraction:.0%} {role}; make data.block smaller or the fraction larger"
            )
        grid[order[taken : taken + count]] = SPLITS.index(role)
        taken += count
    codes = np.repeat(np.repeat(grid.reshape(rows, cols), block, 0), block, 1)[: shape[0], : shape[1]].copy()
    return BlockSplit(_guarded(codes, guard), block)


def _guarded(codes: npt.NDArray[np.uint8], guard: int) -> npt.NDArray[np.uint8]:
    """Marks pixels within ``guard`` of a pixel of another role, in rows, columns and diagonals, as belonging to none."""
    low, high = codes, codes
    for axis in (0, 1):
        low, high = (_reach(values, guard, axis, take) for values, take in ((low, np.minimum), (high, np.maximum)))
    return np.where(low == high, codes, NONE).astype(np.uint8)


def _reach(values: npt.NDArray[np.uint8], guard: int, axis: int, take: np.ufunc) -> npt.NDArray[np.uint8]:
    """The least or greatest value within ``guard`` along one axis."""
    padded = np.pad(values, [(guard, guard) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * guard + 1, axis)
    return np.asarray(take.reduce(windows, axis=-1))


def few_words(role: str, units: int, unit: str, absent: Sequence[str] = ()) -> str | None:
    """What is to be said of a role that holds too little to judge by; None where it holds enough.

    Args:
        units: how many blocks or groups with labels it holds (without any labels: all of them).
        unit: what they are, in the plural.
        absent: classes of which it holds nothing.
    """
    lacks = [f"only {units} {unit}"] if units < FEW_UNITS else []
    lacks += [f"nothing of class {', '.join(absent)}"] if absent else []
    return f"The {role} set is small for its task: {' and '.join(lacks)}; its figures are uncertain." if lacks else None
