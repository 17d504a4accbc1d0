"""Training views of samples: blends, gains, noise, lost dates, other starts, turns and moved places.

A student learns what the teacher answers, so views need no labels; they need to lie where the student will be used. Each view
comes from ``(seed, index)`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.turns import TURNS, turned_image

Rng = np.random.Generator
FIXED = frozenset({"month", "latitude", "longitude", "land_cover"})
"""Bands that a blend would make meaningless."""
STILL = FIXED | {"elevation", "slope"}
"""Bands that are no measurement of the surface at a time: never scaled or lost."""
GROUPS = (frozenset({"vv", "vh"}), frozenset({"temperature", "precipitation"}))
"""Bands that are lost together beside the optical ones, which are lost together too."""


@dataclass(frozen=True)
class SampleViewSettings:
    """See the recipe's section of the same fields."""

    mix: float = 0.5
    apart: float = 0.0
    gain: float = 0.1
    noise: float = 0.02
    drop: float = 0.0
    shift: float = 0.0
    flip: bool = True
    jitter_deg: tuple[float, ...] = ()
    uniform: float = 0.0
    plain: float = 0.2
    zoom: float = 0.0


@dataclass(frozen=True)
class MadeView:
    """A view, and how what is known of its sample follows.

    Attributes:
        dn: digital numbers of the contract's shape.
        sample: number of the sample that it is of; None where others are blended in, or the place is another.
        plain: whether it is the sample as it is.
        turn: of the image (:func:`rsedge.data.turns.turned_image`).
    """

    dn: npt.NDArray[np.generic]
    sample: int | None
    plain: bool = False
    turn: int = 0


@dataclass
class SampleViews:
    """``views(i)`` gives view i, DN of the contract's shape and dtype; ``views.made(i)`` what is known of it as well.

    Args:
        dn: (N, *spec.shape) digital numbers to draw from.
    """

    dn: npt.NDArray[np.generic]
    spec: InputSpec
    settings: SampleViewSettings
    seed: int
    spread: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.dn):
            raise RequestError(
                "data.samples: no sample is left to train on; lower data.test.fraction or data.selection.fraction"
            )
        axis = self._axis(self.dn)
        moved = np.moveaxis(self.dn.astype(np.float32), axis, -1).reshape(-1, self.spec.channels)
        known = np.where(self._missing(moved), np.float32(np.nan), moved)
        self.spread = np.nan_to_num(np.nanstd(known, axis=0)).astype(np.float32)

    def __call__(self, index: int) -> npt.NDArray[np.generic]:
        return self.made(index).dn

    def made(self, index: int) -> MadeView:
        """View ``index`` and what it is of."""
        rng = np.random.default_rng([self.seed, 5, index])
        number = int(rng.integers(len(self.dn)))
        sample = self.dn[number]
        if rng.random() < self.settings.plain:
            return MadeView(sample, number, plain=True)
        if self.spec.layout == "C":
            return MadeView(self._moved(sample, rng), None)
        x = np.moveaxis(sample.astype(np.float32), self._axis(sample), -1)
        missing = self._missing(x)
        blended = rng.random() < self.settings.mix
        x = self._blended(x, missing, rng) if blended else x
        x = self._varied(x, missing, rng)
        x = self._elsewhere(self._rolled(self._lost(x, rng), rng), rng)
        x = np.moveaxis(x, -1, self._axis(sample))
        turn = int(rng.integers(TURNS)) if self.spec.is_image and self.settings.flip else None
        x = x if turn is None else turned_image(x, turn)
        return MadeView(self._typed(x), None if blended else number, turn=turn or 0)

    def _axis(self, x: npt.NDArray[np.generic]) -> int:
        return x.ndim - 3 if self.spec.is_image else x.ndim - 1

    def _missing(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Where a value is its band's nodata; bands last."""
        return np.stack([x[..., i] == np.float32(np.nan if b.nodata is None else b.nodata)
                         for i, b in enumerate(self.spec.bands)], -1)  # fmt: skip

    def _other_than(self, names: frozenset[str]) -> npt.NDArray[np.bool_]:
        return np.array([name not in names for name in self.spec.band_names])

    def _blended(self, x: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_], rng: Rng) -> npt.NDArray[np.float32]:
        """Shares of another sample: one of all bands, or a sample and a share of their own for each sensor's bands."""
        together = rng.random() >= self.settings.apart
        for columns in [self._other_than(FIXED)] if together else self._sensors():
            raw = self.dn[rng.integers(len(self.dn))]
            other = np.moveaxis(raw.astype(np.float32), self._axis(raw), -1)
            share = np.float32(rng.random())
            keep = missing | self._missing(other) | ~columns
            x = np.where(keep, x, x * (1 - share) + other * share)
        return x

    def _sensors(self) -> list[npt.NDArray[np.bool_]]:
        """Columns of each sensor: those of :data:`GROUPS`, terrain, and all others."""
        names = self.spec.band_names
        found = [np.array([n in group for n in names]) for group in (*GROUPS, STILL - FIXED)]
        found.append(self._other_than(FIXED) & ~np.any(found, axis=0))
        return [columns for columns in found if columns.any()]

    def _varied(self, x: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_], rng: Rng) -> npt.NDArray[np.float32]:
        gain = np.exp(rng.normal(0, self.settings.gain, self.spec.channels)).astype(np.float32)
        noise = rng.normal(0, self.settings.noise, x.shape).astype(np.float32) * self.spread
        return np.where(missing | ~self._other_than(STILL), x, x * gain + noise)

    def _lost(self, x: npt.NDArray[np.float32], rng: Rng) -> npt.NDArray[np.float32]:
        """One group of bands is missing over a run of times."""
        if self.spec.layout not in ("TC", "TCHW") or rng.random() >= self.settings.drop:
            return x
        groups = self._groups()
        if not groups:
            return x
        x, columns = x.copy(), groups[rng.integers(len(groups))]
        length = 1 + int(rng.integers(self.spec.frames))
        start = int(rng.integers(self.spec.frames - length + 1))
        for column in columns:
            x[start : start + length, ..., column] = self.spec.bands[column].nodata
        return x

    def _groups(self) -> list[list[int]]:
        names = self.spec.band_names
        can = [i for i, b in enumerate(self.spec.bands) if b.nodata is not None and b.name not in STILL]
        apart = [[i for i in can if names[i] in group] for group in GROUPS]
        optical = [i for i in can if not any(names[i] in group for group in GROUPS)]
        return [g for g in (*apart, optical) if g]

    def _rolled(self, x: npt.NDArray[np.float32], rng: Rng) -> npt.NDArray[np.float32]:
        if "T" not in self.spec.layout or rng.random() >= self.settings.shift:
            return x
        return np.roll(x, int(rng.integers(self.spec.frames)), axis=0)

    def _elsewhere(self, x: npt.NDArray[np.float32], rng: Rng) -> npt.NDArray[np.float32]:
        """A series' place is moved as a place alone would be."""
        if self.spec.layout != "TC" or not {"latitude", "longitude"} <= set(self.spec.band_names):
            return x
        latitude, longitude = self._place(float(x[0, self._latitude]), float(x[0, self._longitude]), rng)
        x = x.copy()
        x[:, self._latitude], x[:, self._longitude] = latitude, longitude
        return x

    @property
    def _latitude(self) -> int:
        return self.spec.band_names.index("latitude")

    @property
    def _longitude(self) -> int:
        return self.spec.band_names.index("longitude")

    def _moved(self, sample: npt.NDArray[np.generic], rng: Rng) -> npt.NDArray[np.generic]:
        names = self.spec.band_names
        if not {"latitude", "longitude"} <= set(names):
            raise RequestError(f"data.augment: places need latitude and longitude, the model takes {', '.join(names)}")
        place = sample.astype(np.float32)
        moved = self._place(float(place[self._latitude]), float(place[self._longitude]), rng)
        place[self._latitude], place[self._longitude] = moved
        return self._typed(place)

    def _place(self, latitude: float, longitude: float, rng: Rng) -> tuple[float, float]:
        """A place nearby, or anywhere: longitude wraps, latitude stops at the poles."""
        if rng.random() < self.settings.uniform:
            return float(np.rad2deg(np.arcsin(rng.uniform(-1, 1)))), float(rng.uniform(-180, 180))
        if not self.settings.jitter_deg:
            return latitude, longitude
        spread = rng.choice(np.array(self.settings.jitter_deg))
        latitude = float(np.clip(latitude + rng.normal(0, spread), -90, 90))
        stretched = rng.normal(0, spread) / max(0.05, np.cos(np.deg2rad(latitude)))
        return latitude, float((longitude + stretched + 180) % 360 - 180)

    def _typed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        dtype = np.dtype(self.spec.dtype)
        if dtype.kind == "f":
            return x.astype(dtype)
        info = np.iinfo(dtype)
        return np.clip(np.rint(x), info.min, info.max).astype(dtype)


def held_out_groups(groups: npt.NDArray[np.str_], wanted: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which samples of whole groups are held out: about ``wanted`` of them, at least one group, never all.

    Groups are taken in an order drawn from ``seed``, each where that brings the count nearer to what is wanted.

    Raises:
        RequestError: fewer than two groups.
    """
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise RequestError(
            "data: training, selection and test need whole groups of their own, at least three, and the samples have fewer; "
            "give more groups or smaller ones"
        )
    held, count = np.zeros(len(names), bool), 0
    for group in np.random.default_rng([seed, 11]).permutation(len(names)):
        if count + counts[group] / 2 <= wanted and held.sum() < len(names) - 1:
            held[group], count = True, count + counts[group]
    if not held.any():
        held[counts.argmin()] = True
    return np.asarray(held[inverse])


def group_folds(groups: Sequence[str] | npt.NDArray[np.str_], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold number for each sample; a group lies in one fold, and folds are of about equal size.

    Groups are taken largest first, equals in an order drawn from ``seed``, each into the smallest fold so far.

    Raises:
        RequestError: fewer groups than folds.
    """
    names, inverse, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise RequestError(f"data: {folds} folds need as many groups, the samples have {len(names)}")
    drawn = np.random.default_rng([seed, 6]).permutation(len(names))
    order = drawn[np.argsort(-counts[drawn], kind="stable")]
    sizes, where = np.zeros(folds, np.int64), np.zeros(len(names), np.int64)
    for group in order:
        fold = int(sizes.argmin())
        where[group], sizes[fold] = fold, sizes[fold] + counts[group]
    return np.asarray(where[inverse], dtype=np.int64)
