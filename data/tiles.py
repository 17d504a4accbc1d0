"""Tiles of one image: where they lie, and what of its maps and boxes falls into them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import CORNERS, TRUTH, clipped, places

Boxes = npt.NDArray[np.float32]
"""(M, 5): x low, y low, x high, y high (pixels), class number; (M, 6) of turned boxes, their angle last."""

Map = TypeVar("Map", bound=npt.NDArray[Any])


def tile_origins(shape: tuple[int, ...], size: int) -> list[tuple[int, int]]:
    """Upper left corners (row, column) of tiles in rows from the upper left; what is left at the edges is dropped."""
    height, width = shape
    return [(y, x) for y in range(0, height - size + 1, size) for x in range(0, width - size + 1, size)]


def cut_maps(image: Map, origin: tuple[int, int], size: int) -> Map:
    """One tile of (..., H, W), as a copy."""
    y, x = origin
    return np.ascontiguousarray(image[..., y : y + size, x : x + size])  # type: ignore[return-value]


def cut_boxes(boxes: Boxes, origin: tuple[int, int], size: int) -> Boxes:
    """Boxes whose centre lies in the tile, in its pixels, clipped at its edges."""
    y, x = origin
    moved = boxes.copy()
    moved[:, :CORNERS] -= np.array([x, y, x, y], np.float32)
    centre = (moved[:, :2] + moved[:, 2:4]) / 2
    moved = moved[((centre >= 0) & (centre < size)).all(axis=1)]
    moved[:, :CORNERS] = clipped(places(moved, TRUTH), (0, 0), (size, size))[:, :CORNERS]
    return moved
