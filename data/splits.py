"""Spatially blocked splits: neighbouring pixels never stand on two sides of a split.

Each scene is cut into square blocks; every block belongs to exactly one of train, calibration and validation. A guard
band (pixels) along block borders next to another split belongs to none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_of

SPLITS = ("train", "calibration", "validation")
NONE = 255


@dataclass(frozen=True)
class BlockSplit:
    """``codes`` (H, W) uint8: index into :data:`SPLITS`, or 255 for guard pixels."""

    codes: npt.NDArray[np.uint8]
    block: int

    def mask(self, split: str) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) of one split."""
        return self.codes == SPLITS.index(split)

    def counts(self) -> dict[str, int]:
        """Pixels per split."""
        return {name: int((self.codes == i).sum()) for i, name in enumerate(SPLITS)}

    def digest(self) -> str:
        return sha256_of([self.block, self.codes.shape, self.codes.tobytes().hex()])


def block_split(
    shape: tuple[int, int],
    block: int,
    calibration: float,
    validation: float,
    seed: int,
    guard: int = 0,
) -> BlockSplit:
    """Assigns blocks of ``block`` pixels to the splits at random, by fractions of the scene's blocks.

    Raises:
        RequestError: a split that was asked for gets no block (the scene is too small or the block too large).
    """
    if calibration < 0 or validation < 0 or calibration + validation >= 1:
        raise RequestError(
            f"data.split: calibration ({calibration}) + validation ({validation}) must leave room for training"
        )
    rows, cols = -(-shape[0] // block), -(-shape[1] // block)
    total = rows * cols
    n_val, n_cal = round(total * validation), round(total * calibration)
    for name, fraction, n in (("validation", validation, n_val), ("calibration", calibration, n_cal)):
        if fraction > 0 and n == 0:
            raise RequestError(
                f"data.split: a scene of {shape[0]}x{shape[1]} pixels has {total} blocks of {block}, too few for "
                f"{fraction:.0%} {name}; make data.block smaller or the fraction larger"
            )
    order = np.random.default_rng([seed, rows, cols]).permutation(total)
    grid = np.zeros(total, dtype=np.uint8)
    grid[order[:n_val]] = SPLITS.index("validation")
    grid[order[n_val : n_val + n_cal]] = SPLITS.index("calibration")
    codes = np.repeat(np.repeat(grid.reshape(rows, cols), block, 0), block, 1)[: shape[0], : shape[1]].copy()
    return BlockSplit(_guarded(codes, guard), block)


def _guarded(codes: npt.NDArray[np.uint8], guard: int) -> npt.NDArray[np.uint8]:
    """Marks pixels closer than ``guard`` to a pixel of another split as belonging to none."""
    out = codes.copy()
    for shift in range(1, guard + 1):
        for axis in (0, 1):
            for sign in (1, -1):
                moved = np.roll(codes, sign * shift, axis)
                edge: list[slice] = [slice(None), slice(None)]
                edge[axis] = slice(0, shift) if sign > 0 else slice(-shift, None)
                moved[tuple(edge)] = codes[tuple(edge)]
                out[moved != codes] = NONE
    return out
