"""Whether two images hold the same ground: the same pixels, whatever file, format, crop or shift they come in.

Two files of one image differ in their bytes after any copying (compression, overviews, tags, a crop), so that hashes of files do
not tell. Small windows of one image are drawn and looked for at every place of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]
EDGE, LARGE_EDGE = 3, 5
"""Edge (pixels) of the windows, the larger for images of one or two bands, whose small windows of a few grey levels are alike by
chance. Windows have a pixel of their own in the middle."""
PROBES = 1000
DISTINCT = 5
"""Different pixels that a window must have: flat ground (water, saturated cloud, fill) is alike everywhere."""
ROWS = 512
LOW_BITS = 16


def shared_share(held: npt.NDArray[np.generic], own: Mask, other: npt.NDArray[np.generic], used: Mask) -> float:
    """Share of the windows of ``held`` (C, H, W) around pixels of ``own`` (H, W) that occur in ``other`` around one of ``used``.

    Both images have the same bands and type of numbers. 0 where too little of ``held`` varies to tell.
    """
    edge = EDGE if len(held) > 2 else LARGE_EDGE
    if min(*own.shape, *used.shape) < edge or not used.any():
        return 0.0
    odd = np.random.default_rng(0).integers(2**63, size=len(held) + 2 * edge, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    weights = _Weights(bands=odd[: len(held)], down=odd[len(held) : -edge], across=odd[-edge:])
    probes = _probes(held, own, weights)
    if not len(probes):
        return 0.0
    coarse = np.zeros(2**LOW_BITS, bool)
    coarse[_low(probes)] = True
    found = np.zeros(len(probes), bool)
    for windows, middles in _windows(other, used, weights):
        here = windows[middles]
        here = here[coarse[_low(here)]]
        found |= np.isin(probes, here)
        if found.all():
            break
    return float(found.mean())


@dataclass(frozen=True)
class _Weights:
    """What bands, rows and columns of a window count, so that each window has a word of its own."""

    bands: Words
    down: Words
    across: Words

    @property
    def edge(self) -> int:
        return len(self.down)


def _probes(image: npt.NDArray[np.generic], own: Mask, weights: _Weights) -> Words:
    """Windows (n,) of the image that vary, drawn from all of it."""
    margin = weights.edge // 2
    inside = np.zeros_like(own)
    inside[margin:-margin, margin:-margin] = own[margin:-margin, margin:-margin]
    picks = np.random.default_rng(1).permutation(np.flatnonzero(inside))[: 8 * PROBES]
    rows, cols = np.unravel_index(picks, own.shape)
    steps = np.arange(-margin, margin + 1)
    around = image[:, rows[:, None, None] + steps[:, None], cols[:, None, None] + steps]
    pixels = _mixed(around, weights.bands)
    ranked = np.sort(pixels.reshape(len(picks), weights.edge**2), axis=1)
    varied = 1 + (np.diff(ranked, axis=1) != 0).sum(1) >= DISTINCT
    kept = pixels[varied][:PROBES]
    return np.asarray(np.unique((kept * weights.across).sum(2, dtype=np.uint64) @ weights.down), dtype=np.uint64)


def _windows(image: npt.NDArray[np.generic], used: Mask, weights: _Weights) -> Iterator[tuple[Words, Mask]]:
    """All windows of an image, a strip at a time, and which of them have a pixel of ``used`` in the middle."""
    height, width = used.shape
    edge, margin = weights.edge, weights.edge // 2
    for top in range(0, height - edge + 1, ROWS):
        strip = np.s_[top : min(top + ROWS + edge - 1, height)]
        middles = used[strip][margin:-margin, margin:-margin]
        if not middles.any():
            continue
        pixels = _mixed(image[:, strip], weights.bands)
        rows = sum(pixels[:, i : width - edge + 1 + i] * weights.across[i] for i in range(edge))
        words = sum(rows[i : len(rows) - edge + 1 + i] * weights.down[i] for i in range(edge))
        yield np.asarray(words, np.uint64), middles


def _mixed(image: npt.NDArray[np.generic], weights: Words) -> Words:
    """A word per pixel of (C, ...), for C weights."""
    out = np.zeros(image.shape[1:], np.uint64)
    for band, weight in zip(image, weights, strict=True):
        bits = band.astype(np.float32).view(np.uint32) if band.dtype.kind == "f" else band
        out += bits.astype(np.uint64) * weight
    return out


def _low(words: Words) -> npt.NDArray[np.intp]:
    """Some bits of the words, of which those in the middle depend on the most."""
    return np.asarray((words >> np.uint64(40)) & np.uint64(2**LOW_BITS - 1), dtype=np.intp)
