"""Which inputs set the ranges of an INT8 model: plain ones, spread over scenes or groups, and over dark and bright places.

Augmented views reach values that no scene has, which widens ranges and coarsens every step between. Tiles hold nothing but pixels
of calibration blocks: what lies around a block is its mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path

Array = npt.NDArray[np.generic]
FILE = "calibration.npz"
Rectangle = tuple[slice, slice]
LEAST_EDGE = 4
"""Edge (pixels) of the smallest piece of a block that is worth a tile."""


@dataclass(frozen=True)
class CalibrationScene:
    """``dn`` (C, H, W) digital numbers; ``allowed`` (H, W), which pixels may be used, a block of ``block`` pixels at a time."""

    dn: Array
    allowed: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]
    block: int


def plain_tiles(scenes: Sequence[CalibrationScene], count: int, tile: int, seed: int, draw: int = 0) -> Array:
    """``count`` tiles (count, C, tile, tile) as the scenes have them: as many of each scene, evenly from dark to bright blocks.

    Args:
        draw: number of the draw; another one takes other blocks and other places in them.

    Raises:
        RequestError: no scene has a piece of a block to take.
    """
    kept = [(scene, pieces) for scene in scenes if (pieces := _by_brightness(scene))]
    if not kept:
        raise RequestError(
            "data.calibration: no block holds a piece to take; make data.block larger or data.guard smaller"
        )
    rng = np.random.default_rng([seed, 12, draw])
    out = []
    for number, (scene, own) in enumerate(kept):
        share = len(range(number, count, len(kept)))
        for index in range(share):
            place = own[min(int((index + rng.random()) / share * len(own)), len(own) - 1)]
            out.append(_mirrored(scene.dn[:, place[0], place[1]], tile, rng))
    return np.stack(out)


def _by_brightness(scene: CalibrationScene) -> list[Rectangle]:
    """The pieces of a scene's blocks, the darkest first."""
    height, width = scene.allowed.shape
    usable, found = scene.allowed & scene.valid, []
    for row in range(0, height, scene.block):
        for col in range(0, width, scene.block):
            piece = _piece(usable, row, col, scene.block)
            if piece is not None:
                found.append((float(scene.dn[:, piece[0], piece[1]].mean(dtype=np.float64)), piece))
    return [piece for _, piece in sorted(found, key=lambda one: one[0])]


def _piece(allowed: npt.NDArray[np.bool_], row: int, col: int, block: int) -> Rectangle | None:
    """A rectangle of a block of which all may be used: the edges with the least of that are cut off, one after the other."""
    part = allowed[row : row + block, col : col + block]
    top, left = 0, 0
    bottom, right = part.shape
    while min(bottom - top, right - left) >= LEAST_EDGE:
        inside = part[top:bottom, left:right]
        if inside.all():
            return slice(row + top, row + bottom), slice(col + left, col + right)
        shares = (inside[0].mean(), inside[-1].mean(), inside[:, 0].mean(), inside[:, -1].mean())
        side = int(np.argmin(shares))
        top, bottom, left, right = top + (side == 0), bottom - (side == 1), left + (side == 2), right - (side == 3)
    return None


def _mirrored(piece: Array, tile: int, rng: np.random.Generator) -> Array:
    """A tile cut out of a piece and its mirror images at a random place."""
    axes = []
    for size in piece.shape[1:]:
        at = np.mod(int(rng.integers(2 * size)) + np.arange(tile), 2 * size)
        axes.append(np.where(at < size, at, 2 * size - 1 - at))
    return piece[:, axes[0]][:, :, axes[1]]


def save_calibration(folder: Path, draws: Sequence[Array]) -> None:
    """Writes :data:`FILE`: array ``dn`` is the first draw, ``dn-1`` and so on are further ones."""
    named = {f"dn-{number}" if number else "dn": tiles for number, tiles in enumerate(draws)}
    with atomic_path(folder / FILE) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, allow_pickle=False, **named)


def load_calibration(folder: Path) -> list[Array]:
    """The draws that :func:`save_calibration` wrote, in their order."""
    with np.load(folder / FILE, allow_pickle=False) as z:
        return [z[name] for name in z.files]


def spread_over_groups(groups: npt.NDArray[np.str_], wanted: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Numbers of ``wanted`` samples (all, where they are fewer), as evenly from all groups as these have samples, in order."""
    drawn = rng.permutation(len(groups))
    turn = np.zeros(len(groups), np.int64)
    seen: dict[str, int] = {}
    for number in drawn:
        name = str(groups[number])
        turn[number] = seen[name] = seen.get(name, -1) + 1
    order = drawn[np.argsort(turn[drawn], kind="stable")]
    return np.sort(order[:wanted])
