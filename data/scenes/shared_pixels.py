"""Whether two images hold the same ground: the same pixels, whatever file, format, crop or shift they come in.

Two files of one image differ in their bytes after any copying (compression, overviews, tags, a crop), so that hashes of files do
not tell. Small windows of one image are drawn and looked for at every place of the other. In other units (an offset left in,
another scale) values differ, but not which of two neighbours is brighter: windows of that are looked for too, and where they say
that one image lies in the other, all neighbours there must agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.paged import places, strips

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]
EDGE, LARGE_EDGE = 3, 5
"""Edge (pixels) of the windows, the larger for images of one or two bands, whose small windows of a few grey levels are alike by
chance. Windows have a pixel of their own in the middle."""
PROBES = 1000
ORDER_EDGE = 7
"""Edge (pixels) of windows of one band that tell nothing but which neighbour is brighter."""
VOTES, PLACES = 5, 3
"""Windows that must say the same place of one image in the other, and how many places are looked at."""
AGREED, LEAST_COMPARED = 0.95, 100
"""Share of neighbours, and least number of them, that must be in the same order; dates of one ground have far less."""
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
    weights = _Weights.of(len(held), edge)
    probes, _ = _probes(held, own, weights)
    if not len(probes):
        return 0.0
    found = np.zeros(len(probes), bool)
    for here, _ in _met(probes, other, used, weights):
        found |= np.isin(probes, here)
        if found.all():
            break
    return float(found.mean())


def share_in_other_units(held: npt.NDArray[np.generic], own: Mask, other: npt.NDArray[np.generic], used: Mask) -> float:
    """Share of the pixels ``own`` (H, W) of ``held`` (C, H, W) that ``other`` shows at one of ``used`` in any units.

    Units are any values that rise with those of ``held``, band by band. 0 where the other does not show the same, too little of
    ``held`` varies to tell, or rounding in the other's units left too little of it.
    """
    if min(*own.shape, *used.shape) < ORDER_EDGE or not used.any() or not own.any():
        return 0.0
    band = int(np.argmax([_roughness(b, own) for b in held]))
    shares = [
        _share_at(held, own, other, used, place)
        for place in _places(_order(held[band]), own, _order(other[band]), used)
    ]
    return max(shares, default=0.0)


def _roughness(band: npt.NDArray[Any], own: Mask) -> float:
    """How much neighbours in a row differ, summed."""
    return sum(
        float(np.abs(np.diff(band[rows].astype(np.float64)))[own[rows, 1:]].sum())
        for rows in strips(len(band), band[0].nbytes)
    )


def _order(band: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(1, H, W): which of the neighbours right, below and across are brighter."""
    code = np.zeros((1, *band.shape), np.uint8)
    code[0, :, :-1] |= band[:, :-1] < band[:, 1:]
    code[0, :-1] |= (band[:-1] < band[1:]).astype(np.uint8) << 1
    code[0, :-1, :-1] |= (band[:-1, :-1] < band[1:, 1:]).astype(np.uint8) << 2
    return code


def _places(held: npt.NDArray[np.uint8], own: Mask, other: npt.NDArray[np.uint8], used: Mask) -> list[tuple[int, int]]:
    """Where (rows, columns) the first image may lie in the other, the likeliest first."""
    weights = _Weights.of(1, ORDER_EDGE)
    probes, at = _probes(held, own, weights)
    rows, cols = np.unravel_index(at, own.shape)
    down, across = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for words, there in _met(probes, other, used, weights) if len(probes) else ():
        which = np.searchsorted(probes, words).clip(max=len(probes) - 1)
        same = probes[which] == words
        there_rows, there_cols = np.unravel_index(there[same], used.shape)
        down.append(there_rows - rows[which[same]])
        across.append(there_cols - cols[which[same]])
    found, votes = np.unique(np.stack([np.concatenate(down), np.concatenate(across)]), axis=1, return_counts=True)
    best = np.argsort(-votes, kind="stable")[:PLACES]
    return [(int(found[0, i]), int(found[1, i])) for i in best if votes[i] >= VOTES]


def _share_at(
    held: npt.NDArray[np.generic], own: Mask, other: npt.NDArray[np.generic], used: Mask, place: tuple[int, int]
) -> float:
    """Share of ``own`` that falls on ``used`` at a place; 0 where neighbours there are in another order."""
    overlaps = [_overlap(a, b, shift) for a, b, shift in zip(own.shape, used.shape, place, strict=True)]
    (rows, rows_other), (cols, cols_other) = overlaps
    both = own[rows, cols] & used[rows_other, cols_other]
    agreed = compared = 0
    pairs = zip(held[:, rows, cols], other[:, rows_other, cols_other], strict=True)
    for (one, two), strip in itertools.product(pairs, list(strips(len(both), both[0].nbytes))):
        below = slice(strip.start + 1, strip.stop + 1)
        for near, far in (
            (np.s_[strip, :-1], np.s_[strip, 1:]),
            (np.s_[strip.start : len(both[below]) + strip.start], below),
        ):
            rises, falls = one[near] < one[far], one[near] > one[far]
            rises_too, falls_too = two[near] < two[far], two[near] > two[far]
            here = both[near] & both[far] & (rises | falls) & (rises_too | falls_too)
            compared += int(here.sum())
            agreed += int((here & (rises == rises_too)).sum())
    if compared < LEAST_COMPARED or agreed < AGREED * compared:
        return 0.0
    return float(both.sum() / own.sum())


def _overlap(size: int, size_other: int, shift: int) -> tuple[slice, slice]:
    """The parts of two axes that lie on each other where the first begins ``shift`` pixels into the other."""
    start, end = max(0, -shift), min(size, size_other - shift)
    return slice(start, end), slice(start + shift, end + shift)


@dataclass(frozen=True)
class _Weights:
    """What bands, rows and columns of a window count, so that each window has a word of its own."""

    bands: Words
    down: Words
    across: Words

    @classmethod
    def of(cls, bands: int, edge: int) -> _Weights:
        drawn = np.random.default_rng(0).integers(2**63, size=bands + 2 * edge, dtype=np.uint64)
        odd = drawn * np.uint64(2) + np.uint64(1)
        return cls(bands=odd[:bands], down=odd[bands:-edge], across=odd[-edge:])

    @property
    def edge(self) -> int:
        return len(self.down)


def _probes(image: npt.NDArray[np.generic], own: Mask, weights: _Weights) -> tuple[Words, Index]:
    """Windows (n,) of the image that vary, drawn from all of it, in order; and the flat place (n,) of the middle of each."""
    margin = weights.edge // 2
    inside = np.zeros_like(own)
    inside[margin:-margin, margin:-margin] = own[margin:-margin, margin:-margin]
    draw = np.random.default_rng(1)
    rows, cols = places(inside, _drawn(int(np.count_nonzero(inside)), draw))
    order = draw.permutation(len(rows))
    rows, cols = rows[order], cols[order]
    picks = rows * own.shape[1] + cols
    steps = np.arange(-margin, margin + 1)
    around = image[:, rows[:, None, None] + steps[:, None], cols[:, None, None] + steps]
    pixels = _mixed(around, weights.bands)
    ranked = np.sort(pixels.reshape(len(picks), weights.edge**2), axis=1)
    varied = 1 + (np.diff(ranked, axis=1) != 0).sum(1) >= DISTINCT
    kept, at = pixels[varied][:PROBES], picks[varied][:PROBES]
    words, first = np.unique((kept * weights.across).sum(2, dtype=np.uint64) @ weights.down, return_index=True)
    return np.asarray(words, dtype=np.uint64), at[first]


def _drawn(count: int, draw: np.random.Generator) -> Index:
    """Numbers of pixels that windows are drawn around, ascending."""
    return np.sort(draw.choice(count, min(count, 8 * PROBES), replace=False, shuffle=False))


def _met(probes: Words, image: npt.NDArray[np.generic], used: Mask, weights: _Weights) -> Iterator[tuple[Words, Index]]:
    """Windows of an image that may be among some (and few others), a strip at a time, and the flat places of their middles."""
    coarse = np.zeros(2**LOW_BITS, bool)
    coarse[_low(probes)] = True
    for top, windows, middles in _windows(image, used, weights):
        rows, cols = np.nonzero(middles)
        words = windows[middles]
        near = coarse[_low(words)]
        margin = weights.edge // 2
        yield words[near], (rows[near] + top + margin) * used.shape[1] + cols[near] + margin


def _windows(image: npt.NDArray[np.generic], used: Mask, weights: _Weights) -> Iterator[tuple[int, Words, Mask]]:
    """All windows of an image, a strip at a time: its first row, they, and which have a pixel of ``used`` in the middle."""
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
        yield top, np.asarray(words, np.uint64), middles


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
