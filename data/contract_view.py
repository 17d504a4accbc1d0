"""Inputs of one band contract as another one takes them: some of its bands or dates, or bands of another sensor made of them.

One scene teaches and is judged under several contracts: a teacher looks at thirteen bands, its student at four of them, at four of
another sensor, or at one date of twelve. Inputs are cut once, under the contract that has all of it; each network gets its view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError

Dn = npt.NDArray[np.generic]
FARTHEST = 0.1
"""Part of its wavelength by which a made band may lie beyond the bands that it is made of."""
STEPS = 201
"""Points at which a band's response is summed."""


@dataclass(frozen=True, eq=False)
class ContractView:
    """What a contract's inputs are under another one.

    Attributes:
        source: the contract that inputs come under.
        target: the contract that they are given under.
        weights: (target bands, source bands) shares of physical values, 1 in all per row.
        dates: numbers of the source's dates that are kept, in order; None where all are.
    """

    source: InputSpec
    target: InputSpec
    weights: npt.NDArray[np.float32]
    dates: tuple[int, ...] | None = None

    @classmethod
    def by_name(cls, source: InputSpec, target: InputSpec, where: str = "the model's input") -> ContractView:
        """A view that takes bands of the source as they are.

        Raises:
            RequestError: the source lacks one of the target's bands.
        """
        pairs = zip(source.band_names, source.common_names, strict=True)
        index = target.select([own if own in target.band_names else common for own, common in pairs], where)
        return cls(source, target, np.eye(source.channels, dtype=np.float32)[index])

    @property
    def is_same(self) -> bool:
        """Whether inputs are given as they come."""
        return self.dates is None and self._bands_stay and self.picks == list(range(self.source.channels))

    def sees_as(self, other: ContractView) -> bool:
        """Whether another view gives the same of the same inputs, which contracts alone do not tell."""
        mine, theirs = ((v.source, v.target, v.dates) for v in (self, other))
        return mine == theirs and np.array_equal(self.weights, other.weights)

    @property
    def picks(self) -> list[int]:
        """By band of the target, the band of the source that weighs most in it."""
        return [int(i) for i in self.weights.argmax(1)]

    @property
    def _bands_stay(self) -> bool:
        """Whether digital numbers are taken as they are: every band is one of the source's, written in the same way."""
        pairs = zip(self.target.bands, (self.source.bands[i] for i in self.picks), strict=True)
        alike = all((a.scale, a.offset, a.nodata) == (b.scale, b.offset, b.nodata) for a, b in pairs)
        return alike and self.source.dtype == self.target.dtype and bool((self.weights.max(1) == 1).all())

    def __call__(self, dn: Dn) -> Dn:
        """Digital numbers (..., *source.shape) as (..., *target.shape); made bands are rounded as their contract writes them.

        A made value is missing where one of those that it is made of is.
        """
        if self.is_same:
            return dn
        kept = self._at_dates(dn)
        axis = -3 if self.source.is_image else -1
        return kept.take(self.picks, axis) if self._bands_stay else self._made(kept, axis)

    def _at_dates(self, dn: Dn) -> Dn:
        if self.dates is None:
            return dn
        axis = dn.ndim - len(self.source.layout) + self.source.layout.index("T")
        kept = dn.take(self.dates, axis)
        return kept if "T" in self.target.layout else kept.squeeze(axis)

    def _made(self, dn: Dn, axis: int) -> Dn:
        physical = np.moveaxis(self.source.to_physical(dn), axis, -1)
        made = self.target.to_dn(np.moveaxis(physical @ self.weights.T, -1, axis))
        bands = np.moveaxis(dn, axis, 0)
        missing = [
            np.zeros(value.shape, bool) if band.nodata is None else np.equal(value, band.nodata)
            for value, band in zip(bands, self.source.bands, strict=True)
        ]
        lost = np.stack([np.logical_or.reduce([missing[i] for i in np.flatnonzero(row)]) for row in self.weights], axis)
        fill = self.target.missing_dn()
        return np.where(lost, fill[:, None, None] if self.target.is_image else fill, made)

    @property
    def words(self) -> list[str]:
        """What each band of the target is made of, where that is no band as it is: ``red: 0.6 B4 + 0.4 B5``."""
        parts = []
        for band, row in zip(self.target.bands, self.weights, strict=True):
            shares = {b.name: float(w) for b, w in zip(self.source.bands, row, strict=True) if w > 0}
            if shares != {band.name: 1.0}:
                parts.append(f"{band.name}: " + " + ".join(f"{w:.2f} {n}" for n, w in shares.items()))
        return parts


def response_weights(
    wavelength_nm: float, width_nm: float, bands: Sequence[BandSpec], nearest: bool, where: str
) -> dict[str, float]:
    """Shares of bands in one of another sensor, by name.

    The spectrum between band centres is taken as straight, beyond them as flat, and summed under the made band's response, a Gauss
    curve of this full width at half its height; without a width it is read at the centre. ``nearest`` takes one band alone.

    Raises:
        RequestError: no band has a wavelength, or the made one lies too far beyond all of them.
    """
    known = sorted((b.wavelength_nm, b.name) for b in bands if b.wavelength_nm is not None)
    if not known:
        raise RequestError(f"{where}: the teacher's bands have no wavelengths to make it of; name one of its bands")
    centres, names = np.array([w for w, _ in known]), [n for _, n in known]
    beyond = max(centres[0] - wavelength_nm, wavelength_nm - centres[-1])
    if beyond > FARTHEST * wavelength_nm:
        raise RequestError(
            f"{where}: {wavelength_nm:g} nm lies {beyond:g} nm beyond the bands it could be made of ({_listed(known)}); "
            "leave it out, or have it read from the data (mean and std)"
        )
    if nearest:
        return {names[int(np.abs(centres - wavelength_nm).argmin())]: 1.0}
    at = wavelength_nm + np.linspace(-1.5, 1.5, STEPS) * width_nm
    response = np.exp(-4 * np.log(2) * np.linspace(-1.5, 1.5, STEPS) ** 2)
    hats = np.stack([np.interp(at, centres, one) for one in np.eye(len(centres))])
    shares = hats @ response / response.sum()
    kept = np.where(shares < 0.005, 0.0, shares)
    return {n: float(s) for n, s in zip(names, kept / kept.sum(), strict=True) if s > 0}


def made_band(
    name: str, wavelength_nm: float, sensor: str | None, shares: Mapping[str, float], of: InputSpec
) -> BandSpec:
    """The contract of a band that is made of others: written as the one that weighs most, its statistics mixed as its values."""
    bands = {b.name: b for b in of.bands}
    first = bands[max(shares, key=lambda n: shares[n])]

    def mixed(values: Mapping[str, float]) -> float:
        return float(sum(share * values[n] for n, share in shares.items()))

    stretch = None
    if first.stretch is not None:
        ends = [mixed({n: b.stretch[i] for n, b in bands.items() if b.stretch is not None}) for i in (0, 1)]
        stretch = (ends[0], ends[1])
    return first.model_copy(
        update={
            "name": name, "wavelength_nm": wavelength_nm, "sensor": sensor, "stretch": stretch,
            "mean": mixed({n: b.mean for n, b in bands.items()}), "std": mixed({n: b.std for n, b in bands.items()}),
        }
    )  # fmt: skip


def _listed(known: Sequence[tuple[float, str]]) -> str:
    return ", ".join(f"{name} {wave:g} nm" for wave, name in known)
