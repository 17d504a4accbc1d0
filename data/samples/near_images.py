"""Images that are copies up to a flip, a quarter turn, a shift of a few pixels, little noise, or another scale of values.

Each image is brought to one plane of fine detail, in which the strongest spots and edges are marked. A mark with some of those
around it makes a constellation, whose distances no flip, turn or shift changes: images that share one are candidates, and how the
two marks' surroundings agree says flip, turn and shift. A candidate is a copy only if then all that both images show agrees, weak
detail as much as strong, far beyond what images as rough as these agree by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", bound=np.generic)
Planes = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

LEAST_EDGE = 12
"""Edge (pixels) of the smallest image that has marks enough."""
DETAIL = 5
"""Edge (pixels) of the mean that is taken away from each pixel: what is left is detail."""
MARGIN = DETAIL // 2
"""Pixels along the border whose detail a shift changes."""
FLAT = 1e-4
"""Detail (standard deviations of the image) of half of the pixels below which it is rounding."""
CLIPPED = 2.0
"""Detail of more than so many medians counts no more than that, so that one bright spot is no proof."""
LEVELS = 127
BRIGHT, DARK, EDGE = 1, 2, 3
"""Kinds of marks: spots of detail, and where detail changes most."""
LATER = 1e-6
"""Edges are marked where there are not spots enough, as in small and smooth images."""
MARKS = 24
OTHERS, AROUND = 4, 6
"""A constellation is a mark with so many others of those nearest to it."""
LAGS = 4
"""Of images with the same constellation each is compared with so many others; all of them hang together by that."""
WINDOW = 7
"""Edge (pixels) of a mark's surroundings."""
REACH = WINDOW // 2
ALIKE = 0.8
"""Least correlation of the surroundings of two marks."""
FARTHEST = 8
"""A shift is at most this part of an edge: copies overlap by three quarters."""
AGREED = 0.9
"""Least correlation of the detail of two copies; noise with a third of the detail's deviation in each leaves as much."""
SURE = 10.0
"""Standard deviations by which copies agree more than independent images of the same spectrum do."""
SPARSE, SPARSE_AGREED = 4, 0.4
"""Candidates are first compared in each so manieth row and column, where they must agree so much."""
CHUNK = 1 << 22
"""Values that are worked on at once."""


def near_images(values: npt.NDArray[np.generic], fills: Sequence[float | None]) -> Index:
    """(n, 2) numbers of images that are near copies; chains of pairs hold what belongs together.

    Args:
        values: (N, C, H, W), edges of at least :data:`LEAST_EDGE`; ones that are not square are turned by halves only.
        fills: of each band, the value that says that nothing is known, or None.
    """
    table = _Table.of(values, fills)
    return table.copies(table.candidates())


def turned(images: npt.NDArray[Number], turn: int) -> npt.NDArray[Number]:
    """Images (..., H, W) by one of eight turns: so many quarters against the clock, mirrored left to right first from 4 on."""
    return np.rot90(images[..., ::-1] if turn >= 4 else images, turn % 4, axes=(-2, -1))


@dataclass(frozen=True)
class _Table:
    """N images' detail, and their M marks.

    Attributes:
        detail: (N, H, W) int8, clipped; 0 where nothing is known.
        image, row, col: (M,) of each mark.
        windows: (M, WINDOW, WINDOW) float16 detail around it, of length 1.
        words, bases: (K,) constellations, and the number of the mark that each is around.
    """

    detail: npt.NDArray[np.int8]
    image: Index
    row: Index
    col: Index
    windows: npt.NDArray[np.float16]
    words: Words
    bases: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: npt.NDArray[np.generic], fills: Sequence[float | None]) -> _Table:
        detail = np.zeros((len(values), *values.shape[2:]), np.int8)
        found, marks = [], 0
        step = max(1, CHUNK // values[0].size)
        for start in range(0, len(values), step):
            fine = _detail(_plane(values[start : start + step], fills))
            detail[start : start + step], varied = _clipped(fine)
            which, row, col, kind = _marks(fine, varied)
            windows = _windows(fine, which, row, col)
            words, bases = _constellations(which, row, col, kind)
            found.append((start + which, row, col, windows.astype(np.float16), words, bases + np.int32(marks)))
            marks += len(which)
        return cls(detail, *(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def candidates(self) -> Index:
        """(n, 5) image, other image, turn of the other, and then its shift down and across, that a constellation tells of."""
        height, width = self.detail.shape[1:]
        one, other = self._met()
        found = [np.empty((0, 5), np.intp)]
        for turn in range(8) if height == width else (0, 2, 4, 6):
            like = np.empty(len(one), bool)
            for part in _parts(len(one), WINDOW**2):
                windows = self.windows[one[part]].astype(np.float32), self.windows[other[part]].astype(np.float32)
                like[part] = np.einsum("nij,nij->n", windows[0], turned(windows[1], turn)) > ALIKE
            first, second = one[like], other[like]
            row, col = _turned_place(self.row[second], self.col[second], turn, height, width)
            down, across = self.row[first] - row, self.col[first] - col
            few = (np.abs(down) * FARTHEST <= height) & (np.abs(across) * FARTHEST <= width)
            turns = np.full(len(first), turn)
            found.append(np.stack([self.image[first], self.image[second], turns, down, across], 1)[few])
        return np.unique(np.concatenate(found), axis=0)

    def _met(self) -> tuple[Index, Index]:
        """Marks (n,) of two images that have a constellation in common."""
        order = np.argsort(self.words, kind="stable")
        words, marks = self.words[order], self.bases[order]
        keys = [np.empty(0, np.intp)]
        for lag in range(1, LAGS + 1):
            here = np.flatnonzero(words[lag:] == words[:-lag])
            one, other = marks[here].astype(np.intp), marks[here + lag].astype(np.intp)
            apart = self.image[one] != self.image[other]
            one, other = one[apart], other[apart]
            keys.append(np.minimum(one, other) * len(self.image) + np.maximum(one, other))
        key = np.unique(np.concatenate(keys))
        return key // max(1, len(self.image)), key % max(1, len(self.image))

    def copies(self, candidates: Index) -> Index:
        """Pairs (n, 2) of those candidates that are copies."""
        found = [np.empty((0, 2), np.intp)]
        how, which = np.unique(candidates[:, 2:], axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        ends = np.searchsorted(which.ravel()[order], np.arange(len(how) + 1))
        for (turn, down, across), start, end in zip(how.tolist(), ends, ends[1:], strict=False):
            pairs = candidates[order[start:end], :2]
            for step in (SPARSE, 1):
                pairs = pairs[self._agree(pairs, turn, down, across, step)]
            found.append(pairs)
        return np.unique(np.concatenate(found), axis=0)

    def _agree(self, pairs: Index, turn: int, down: int, across: int, step: int) -> Mask:
        """Which pairs (n, 2) agree where both show something, in each ``step``-th row and column; only 1 is proof."""
        margin = MARGIN if down or across else 0
        (rows, rows_other), (cols, cols_other) = (
            _shared(size, shift, margin, step)
            for size, shift in zip(self.detail.shape[1:], (down, across), strict=True)
        )
        like, free = np.empty(len(pairs), np.float32), np.zeros(len(pairs))
        for part in _parts(len(pairs), self.detail[0].size // step**2):
            one = self.detail[pairs[part, 0]][:, rows, cols].astype(np.float32)
            other = turned(self.detail[pairs[part, 1]], turn)[:, rows_other, cols_other].astype(np.float32)
            power = np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", other, other)
            like[part] = np.einsum("nij,nij->n", one, other) / np.sqrt(np.maximum(power, 1))
            if step == 1:
                free[part] = _free(one, other)
        if step > 1:
            return like > SPARSE_AGREED
        sure = np.arctanh(np.minimum(like, 0.99999)) * np.sqrt(np.maximum(free - 3, 0))
        return np.asarray((like > AGREED) & (sure > SURE))


def _free(one: Planes, other: Planes) -> npt.NDArray[np.float64]:
    """(n,) how many independent pixels have correlations that scatter as widely as those of images with these spectra."""
    first, second = (np.abs(np.fft.fft2(planes)) ** 2 for planes in (one, other))
    both = (first * second).sum((1, 2))
    return np.asarray(first.sum((1, 2)) * second.sum((1, 2)) / np.maximum(both, 1))


def _parts(count: int, size: int) -> Iterator[slice]:
    """Slices of ``count`` things of ``size`` values each."""
    step = max(1, CHUNK // max(1, size))
    return (slice(start, start + step) for start in range(0, count, step))


def _shared(size: int, shift: int, margin: int, step: int) -> tuple[slice, slice]:
    """The part of an axis that an image and another one, shifted, both show; without a margin at both its ends."""
    starts, length = (max(0, shift), max(0, -shift)), size - abs(shift) - margin
    one, other = (slice(start + margin, start + length, step) for start in starts)
    return one, other


def _plane(values: npt.NDArray[np.generic], fills: Sequence[float | None]) -> Planes:
    """One plane (n, H, W) of images (n, C, H, W): their bands, each about its mean by its deviation, summed; NaN where unknown."""
    bands = values.astype(np.float32)
    known = np.asarray(np.isfinite(bands).all(1))
    for band, fill in enumerate(fills):
        if fill is not None and np.isfinite(fill):
            known &= bands[:, band] != np.float32(fill)
    pixels = np.maximum(known.sum((1, 2)), 1).astype(np.float32)[:, None]
    here = known[:, None]
    if not known.all():
        bands = np.where(here, bands, np.float32(0))
    mean = bands.sum((2, 3)) / pixels
    bands = (bands - mean[..., None, None]) * here
    deviation = np.sqrt(np.einsum("nchw,nchw->nc", bands, bands) / pixels)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    plane = np.einsum("nchw,nc->nhw", bands, scale) / bands.shape[1]
    return np.asarray(np.where(known, plane, np.float32(np.nan)))


def _detail(plane: Planes) -> Planes:
    """What differs from the mean around it; 0 where anything around is unknown."""
    known = np.isfinite(plane)
    found = np.where(known, plane, np.float32(0))
    whole = _mean(known.astype(np.float32), DETAIL) > 1 - 0.5 / DETAIL**2
    return np.asarray((found - _mean(found, DETAIL)) * whole)


def _clipped(detail: Planes) -> tuple[npt.NDArray[np.int8], Mask]:
    """Detail (n, H, W) in whole numbers, and which images (n,) have any in more than half of their pixels."""
    usual = np.median(np.abs(detail), axis=(1, 2), keepdims=True)
    varied = usual > FLAT
    share = np.clip(detail / (CLIPPED * np.where(varied, usual, 1)), -1, 1) * varied
    return np.round(share * LEVELS).astype(np.int8), varied.ravel()


def _over_squares(planes: Planes, edge: int, together: np.ufunc) -> Planes:
    """Sums or greatest values over squares around each pixel, the planes (n, H, W) mirrored at their borders."""
    reach, (height, width) = edge // 2, planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    down = padded[:, :height].copy()
    for i in range(1, edge):
        together(down, padded[:, i : i + height], out=down)
    found = down[..., :width].copy()
    for i in range(1, edge):
        together(found, down[..., i : i + width], out=found)
    return found


def _mean(planes: Planes, edge: int) -> Planes:
    return _over_squares(planes, edge, np.add) / np.float32(edge**2)


def _marks(detail: Planes, varied: Mask) -> tuple[Index, Index, Index, Index]:
    """Image, row, column and kind of the strongest places of images that vary, away from the border: spots and edges of detail."""
    smooth = _mean(detail, 3)
    strength = np.stack([_peaks(smooth**2), np.float32(LATER) * _peaks(_slope(smooth))], axis=1)
    strength *= varied[:, None, None, None]
    inside = strength[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    flat = inside.reshape(len(detail), -1)
    places = np.argpartition(-flat, min(MARKS, flat.shape[1]) - 1, axis=1)[:, :MARKS]
    which = np.repeat(np.arange(len(detail)), places.shape[1])
    some = flat[which, places.ravel()] > 0
    which, (edge, row, col) = which[some], np.unravel_index(places.ravel()[some], inside.shape[1:])
    row, col = row + MARGIN, col + MARGIN
    kind = np.where(edge == 1, EDGE, np.where(detail[which, row, col] > 0, BRIGHT, DARK))
    return which, row, col, kind


def _peaks(strength: Planes) -> Planes:
    """Strength in units of each image's mean, 0 where any of the eight pixels around has more."""
    peaks = np.where(strength < _over_squares(strength, 3, np.maximum), np.float32(0), strength)
    return peaks / np.maximum(strength.mean((1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _slope(planes: Planes) -> Planes:
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    down, across = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return np.asarray(down**2 + across**2)


def _windows(detail: Planes, which: Index, row: Index, col: Index) -> Planes:
    """(M, WINDOW, WINDOW) the detail around marks, of length 1."""
    padded = np.pad(detail, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="symmetric")
    steps = np.arange(WINDOW)
    found = padded[which[:, None, None], row[:, None, None] + steps[:, None], col[:, None, None] + steps]
    return np.asarray(found / np.linalg.norm(found, axis=(1, 2), keepdims=True))


def _constellations(which: Index, row: Index, col: Index, kind: Index) -> tuple[Words, npt.NDArray[np.int32]]:
    """A word of each constellation (the squares of its distances, and the kinds of its marks), and the mark it is around."""
    count = int(which[-1]) + 1 if len(which) else 0
    turn = np.arange(len(which)) - np.searchsorted(which, which)
    places = np.full((count, MARKS, 2), 1 << 14, np.int64)
    places[which, turn] = np.stack([row, col], 1)
    mark = np.full((count, MARKS), -1, np.intp)
    mark[which, turn] = np.arange(len(which))
    kinds = np.zeros((count, MARKS), np.uint64)
    kinds[which, turn] = kind
    far = ((places[:, :, None] - places[:, None]) ** 2).sum(-1)
    far[:, np.arange(MARKS), np.arange(MARKS)] = -1
    near = np.moveaxis(np.argsort(far, axis=2, kind="stable")[..., 1 : AROUND + 1], 2, 0)
    image, base = np.arange(count)[:, None], np.arange(MARKS)[None]
    # Sums of words for each distance, as the order of the others is each image's own.
    own = _mixed(kinds)
    ends = [_mixed(far[image, base, end].astype(np.uint64) * np.uint64(4) + kinds[image, end]) for end in near]
    between = {
        (i, j): _mixed(~far[image, near[i], near[j]].astype(np.uint64))
        for i, j in itertools.combinations(range(AROUND), 2)
    }
    there = [mark[image, end] >= 0 for end in near]
    words, bases = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for picked in itertools.combinations(range(AROUND), OTHERS):
        word = own + sum(ends[i] for i in picked) + sum(between[two] for two in itertools.combinations(picked, 2))
        whole = (mark >= 0) & np.all([there[i] for i in picked], axis=0)
        words.append(word[whole])
        bases.append(mark[whole].astype(np.int32))
    return np.concatenate(words), np.concatenate(bases)


def _mixed(words: Words) -> Words:
    """Words whose sums tell what was added."""
    for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(odd)
    return words ^ (words >> np.uint64(31))


def _turned_place(row: Index, col: Index, turn: int, height: int, width: int) -> tuple[Index, Index]:
    """Where pixels of an image (H, W) come to lie by a turn."""
    mirrored = width - 1 - col if turn >= 4 else col
    return (
        (row, mirrored),
        (width - 1 - mirrored, row),
        (height - 1 - row, width - 1 - mirrored),
        (mirrored, height - 1 - row),
    )[turn % 4]
