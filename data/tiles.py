"""Tiles of one image: where they lie, and what of its maps and boxes falls into them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
"""(M, 5): x low, y low, x high, y high (pixels), class number."""

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
    moved = boxes - np.array([x, y, x, y, 0], np.float32)
    centre = (moved[:, :2] + moved[:, 2:4]) / 2
    inside = ((centre >= 0) & (centre < size)).all(axis=1)
    moved[:, :4] = moved[:, :4].clip(0, size)
    return moved[inside]
