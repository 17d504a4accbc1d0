"""The eight flips and quarter turns of a square image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TURNS = 8


def turned_image(image: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """``image`` (..., H, W) by ``turn % 4`` quarter turns and, from 4 on, with its columns mirrored; a contiguous copy.

    :func:`rsedge.data.boxes.geometry.turned` does the same to boxes.
    """
    out = np.rot90(image, turn % 4, axes=(-2, -1))
    return np.ascontiguousarray(out[..., ::-1] if turn >= 4 else out)
