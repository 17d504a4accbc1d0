"""A detector's candidates: (..., 5 + K) of centre x, y, width, height (pixels), objectness and K class scores (0 to 1).

Where boxes are turned two columns more stand behind them: cosine and sine of twice the angle by which the width is turned from the
image's rows, times any positive number. Half a turn gives the same box and the same two numbers, so that nothing jumps where the
angle begins anew (Yu and Da 2023, "Phase-Shifting Coder"), and no runtime has to compute an angle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import Floats, Numbers

BOX = 4
"""Columns before objectness and class scores."""
BESIDE = 5
"""Columns beside the class scores, where boxes lie along rows and columns."""
TURN = 2
"""Columns more where they are turned."""


def width_of(classes: int, oriented: bool) -> int:
    """Columns of candidates of so many classes."""
    return BESIDE + classes + TURN * oriented


def certainties(candidates: Numbers, oriented: bool) -> Numbers:
    """Objectness times class scores: (..., K)."""
    scores = candidates[..., BESIDE : candidates.shape[-1] - TURN * oriented]
    return np.asarray(candidates[..., BOX:BESIDE] * scores)


def places_of(candidates: Numbers, oriented: bool) -> Floats:
    """Corners of candidates (A, ...) as tables of boxes hold them: (A, 4), or (A, 5) with the angle."""
    centre, half = candidates[:, :2], candidates[:, 2:BOX] / 2
    corners = np.concatenate([centre - half, centre + half], 1)
    return (np.concatenate([corners, angles_of(candidates)[:, None]], 1) if oriented else corners).astype(np.float32)


def angles_of(candidates: Numbers) -> npt.NDArray[Any]:
    """Of turned candidates (..., 5 + K + 2), from -pi/2 to pi/2."""
    return np.asarray(np.arctan2(candidates[..., -1], candidates[..., -2]) / 2)


def turn_columns(angles: Numbers) -> Numbers:
    """The two columns (..., 2) of angles (...)."""
    return np.stack([np.cos(2 * angles), np.sin(2 * angles)], -1)
