"""Outputs of two implementations of one network held against each other. Imports no torch.

A difference counts over the largest value of its array. Where outputs vary little with the input (random weights let the signal of
deep convolutional networks shrink) that would let a wrong branch pass, so a share of what the array varies by limits it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-4
"""Of the largest value of an array."""
FINE = 1e-3
"""Of what an array varies by, between its first two samples and over the places of a map."""
FLOOR = 2e-6
"""Of the largest value: what rounding to float32 leaves after a deep network."""
CORNER = 4
"""Rows and columns of a map that are kept value by value."""
CORNER_CHANNELS = 32
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Held:
    """One array against what was expected.

    Attributes:
        difference: the largest, over the largest value expected; infinite where it cannot be compared.
        allowed: by the rule of this module.
        why: why it cannot be compared; empty where it was.
        missing: there is none of that name to compare with.
    """

    name: str
    difference: float
    allowed: float
    why: str = ""
    missing: bool = False

    @property
    def agrees(self) -> bool:
        return self.difference <= self.allowed


def allowed(expected: npt.NDArray[Any], deviation: npt.NDArray[Any] | None = None) -> float:
    """The difference, over the largest value, within which an array (samples first) is the expected one.

    Args:
        deviation: over the places of the map that the array is part of, where it is known.
    """
    wide = expected.astype(np.float64)
    largest, varies = np.abs(wide).max() or 1.0, np.inf
    if len(wide) > 1:
        varies = float(np.abs(wide[0] - wide[1]).mean())
    if deviation is not None and deviation.any():
        varies = min(varies, float(deviation.max()))
    return float(min(TOLERANCE, max(FINE * varies / largest, FLOOR)))


def held(expected: Arrays, found: Arrays) -> list[Held]:
    """Each expected array against the found one of its name, in their order."""
    return [_held(name, array, found.get(name), _deviation(name, expected)) for name, array in expected.items()]


def _held(
    name: str, expected: npt.NDArray[Any], found: npt.NDArray[Any] | None, deviation: npt.NDArray[Any] | None
) -> Held:
    limit = allowed(expected, deviation)
    if found is None:
        return Held(name, np.inf, limit, "not among our outputs", missing=True)
    if found.shape != expected.shape:
        return Held(name, np.inf, limit, f"ours is {found.shape}, theirs {expected.shape}")
    theirs = expected.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - theirs).max() / (np.abs(theirs).max() or 1.0)
    finite = bool(np.isfinite(difference))
    return Held(name, float(difference) if finite else np.inf, limit, "" if finite else "not finite")


def _deviation(name: str, arrays: Arrays) -> npt.NDArray[Any] | None:
    """Of the map that an array is part of (``map.std`` beside ``map.corner``)."""
    return None if name.endswith(".std") else arrays.get(f"{name.rpartition('.')[0]}.std")


def summed_up(name: str, maps: npt.NDArray[Any], channels: int = CORNER_CHANNELS) -> dict[str, npt.NDArray[Any]]:
    """What is kept of feature maps (N, C, rows, columns): their top left corner; mean, deviation and sum of absolute values of
    each channel."""
    wide = maps.astype(np.float64)
    return {
        f"{name}.corner": maps[:, :channels, :CORNER, :CORNER],
        f"{name}.mean": wide.mean((2, 3)),
        f"{name}.std": wide.std((2, 3)),
        f"{name}.sumabs": np.abs(wide).sum((2, 3)),
    }
