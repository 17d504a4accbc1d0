"""How bands become colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec

Rgb = npt.NDArray[np.uint8]


def rgb(values: npt.NDArray[np.floating], names: Sequence[str], like: npt.NDArray[np.floating] | None = None) -> Rgb:
    """A natural-colour picture (H, W, 3) of bands (C, H, W) that have red, green and blue, else of the first one.

    Args:
        like: physical values by whose range this picture is stretched, so that two can be compared; its own when not given.
    """
    picks = [names.index(b) for b in ("red", "green", "blue")] if {"red", "green", "blue"} <= set(names) else [0, 0, 0]
    image, base = values[picks], values if like is None else like
    low, high = (float(np.nanquantile(base, q)) if np.isfinite(base).any() else q for q in (0.01, 0.98))
    scaled = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-6), 0, 1) ** 0.8
    return np.moveaxis((scaled * 255).astype(np.uint8), 0, -1)


def input_rgb(spec: InputSpec, dn: npt.NDArray[np.generic]) -> Rgb:
    """:func:`rgb` of one image's digital numbers."""
    return rgb(spec.to_physical(dn), spec.band_names)
