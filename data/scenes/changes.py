"""Kinds of change between the ground as scenes show it and what a sensor delivers in flight: a table, a row each.

Every row says when it happens (to the ground before clouds, to the light after them, in the instrument), between which bounds
and where these come from. Strength goes from 0, next to nothing, to 1, the far end of the bounds. Changes keep every pixel where
it is, to within the shift between bands, so that a teacher's answer with and without one can be compared.

Images are physical values (reflectance) of shape (C, H, W); what comes out is finite and within :data:`LIMITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.scenes.fractal import FractalBank

Image = npt.NDArray[np.float32]
Wavelengths = npt.NDArray[np.floating]
When = Literal["ground", "light", "sensor"]
LIMITS = (0.0, 2.0)
"""Reflectance that views may have: above 1 in glint and on cloud sides."""
CLOUDLIKE = (0.15, 0.3)
"""Reflectance at the shortest wavelength from which a pixel is no ground any more, and at which it is none at all."""


@dataclass(frozen=True)
class Seen:
    """What a change may know of a view: centre wavelengths (C,), pixel size (m), fractal fields."""

    wavelengths_nm: Wavelengths
    gsd_m: float
    bank: FractalBank


@dataclass(frozen=True)
class Change:
    """One row.

    Attributes:
        bounds: of ``unit``, at strength 0 and 1.
        what: in words.
        source: where the bounds come from.
        apply: an image, the value within the bounds, what is known of the view, and what to draw from.
    """

    when: When
    bounds: tuple[float, float]
    unit: str
    what: str
    source: str
    apply: Callable[[Image, float, Seen, np.random.Generator], npt.NDArray[np.floating]]

    def __call__(self, image: Image, strength: float, seen: Seen, rng: np.random.Generator) -> Image:
        """The image changed; ``strength`` from 0 to 1."""
        low, high = self.bounds
        return np.clip(self.apply(image, low + strength * (high - low), seen, rng), *LIMITS).astype(np.float32)


def _coarser(image: Image, factor: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """All bands, or those of one instrument (the longer wavelengths), through a coarser pixel and back."""
    longer = seen.wavelengths_nm > rng.choice([0.0, 700.0, 1200.0])
    out = image.copy()
    # A Gaussian of this width (pixels) passes such a share of the contrast at the coarse grid's Nyquist frequency.
    passed = rng.uniform(0.1, 0.4, size=2)
    widths = factor * np.sqrt(-2 * np.log(passed)) / np.pi
    tile = image.shape[-1]
    at = (np.arange(max(round(tile / factor), 4)) + rng.uniform(0.2, 0.8)) * factor - 0.5
    back = (np.arange(tile) - at[0]) / factor
    order = int(rng.choice([0, 1, 1, 3]))
    for i in np.flatnonzero(longer):
        smooth = ndimage.gaussian_filter(image[i], widths, mode="reflect", truncate=3)
        coarse = _sampled(smooth, at, 1)
        out[i] = _sampled(coarse, back, order)
    return out


def _sampled(band: Image, at: npt.NDArray[np.floating], order: int) -> Image:
    """A band at the same places of both axes, by splines of an order."""
    grid = np.meshgrid(at, at, indexing="ij")
    return np.asarray(ndimage.map_coordinates(band, grid, order=order, mode="nearest"), dtype=np.float32)


def _gained(image: Image, reach: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    return image * np.exp(rng.choice([-1, 1]) * reach)


def _bands_gained(image: Image, reach: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    return image * np.exp(rng.uniform(-reach, reach, size=(len(image), 1, 1)))


def _lifted(image: Image, reach: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    common, own = rng.choice([-1, 1]) * rng.uniform(0, 1), rng.uniform(-0.5, 0.5, size=(len(image), 1, 1))
    return image + reach * (common + own)


def _noisy(image: Image, share: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Half of the variance grows with the light, half does not."""
    mean = image.mean((1, 2), keepdims=True)
    sigma = share * np.sqrt(0.5 * mean * (np.maximum(image, 0) + mean))
    return image + sigma * rng.standard_normal(image.shape, dtype=np.float32)


def _striped(image: Image, reach: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Each detector with a gain and dark level of its own, along one axis; some instruments repeat theirs."""
    size = image.shape[-1]
    period = int(rng.choice([6, 16, size]))
    mean = image.mean((1, 2), keepdims=True)
    gains, darks = (reach * rng.standard_normal((len(image), period))[:, np.arange(size) % period] for _ in range(2))
    lines = (np.s_[:, None, :], np.s_[:, :, None])[int(rng.integers(2))]
    return image * (1 + gains[lines]) + 0.3 * mean * darks[lines]


def _shifted(image: Image, reach: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Bands of one focal plane move together: every band by itself, or those above a wavelength."""
    count = len(image)
    planes = np.arange(count) if rng.random() < 0.5 else (seen.wavelengths_nm > rng.choice([700.0, 1200.0])).astype(int)
    angle, far = rng.uniform(0, 2 * np.pi, size=count), reach * rng.uniform(0.5, 1, size=count)
    moves = np.stack([far * np.sin(angle), far * np.cos(angle)], 1)
    moves -= moves[planes[0]]
    return np.stack([ndimage.shift(b, moves[p], order=1, mode="nearest") for b, p in zip(image, planes, strict=True)])


def _levelled(image: Image, step: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Whole levels of a byte from a dark level on; what is brighter than the last one is cut off."""
    dark = rng.uniform(-0.02, 0.0)
    return np.clip(np.rint((image - dark) / step), 0, 255) * step + dark


def _hazy(image: Image, thickness: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Single scattering: what the haze sends up, what it takes from the ground; even, or thicker in places."""
    patchy = rng.choice([0.0, rng.uniform(0, 1)])
    field = thickness * (1 - patchy + 2 * patchy * seen.bank.draw(rng, image.shape[-1], rng.uniform(2, 6)))
    colour = ((550.0 / seen.wavelengths_nm) ** rng.uniform(0.6, 2.5))[:, None, None]
    tau = np.asarray(colour * field)
    return image * np.exp(-rng.uniform(0.25, 0.5) * tau) + rng.uniform(0.05, 0.1) * tau


def _low_sun(image: Image, zenith_deg: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Less direct light than the reflectance was worked out for; skylight, mostly blue, stays."""
    direct = np.cos(np.deg2rad(zenith_deg)) / np.cos(np.deg2rad(45.0))
    sky = np.interp(seen.wavelengths_nm, [450, 660, 860, 1610, 2200], [0.3, 0.18, 0.12, 0.05, 0.03])
    return image * (direct + (1 - direct) * rng.uniform(0.3, 1.0) * sky)[:, None, None]


def groundlike(image: Image, seen: Seen) -> Image:
    """How much of each pixel (1, H, W) is ground and no cloud, 1 to 0, by its brightness at the shortest wavelength."""
    shortest = image[int(np.argmin(seen.wavelengths_nm))]
    low, high = CLOUDLIKE
    return np.clip((high - shortest) / (high - low), 0, 1)[None].astype(np.float32)


def _darker(image: Image, share: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    ground = groundlike(image, seen)
    return image * (1 - ground * share * rng.uniform(0.8, 1.0, size=(len(image), 1, 1)))


def _brighter(image: Image, factor: float, seen: Seen, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """Saturates towards 0.6, as dry sand and old snow do."""
    ground, bright = groundlike(image, seen), factor * rng.uniform(0.8, 1.2, size=(len(image), 1, 1))
    return image + ground * (0.6 * (1 - np.exp(-bright * image / 0.6)) - image).clip(min=0)


CHANGES: dict[str, Change] = {
    "resolution": Change("sensor", (1.2, 4.5), "pixels", "a coarser pixel: optics, sampling, and back to the grid",
        "Sentinel-2 bands of 10 to 60 m on one grid, Landsat's 30 m beside 10 m; contrast of 0.1 to 0.4 at the Nyquist frequency "
        "(Sentinel-2: 0.15 to 0.30)", _coarser),
    "gain": Change("sensor", (0.02, 0.18), "of the logarithm", "one factor on all bands",
        "radiometric uncertainty: Sentinel-2 5 %, goal 3 %; Landsat 8 3 %; to three times that uncalibrated", _gained),
    "band-gain": Change("sensor", (0.02, 0.15), "of the logarithm", "a factor on each band",
        "as gain; between sensors bands of one name differ by some per cent", _bands_gained),
    "offset": Change("sensor", (0.002, 0.02), "reflectance", "a dark level, common and per band",
        "Sentinel-2's own of 0.1 is taken out by its scale; what is left of dark signal and stray light is some thousandths",
        _lifted),
    "noise": Change("sensor", (0.003, 0.06), "of the band's mean", "noise, part of it growing with the light",
        "Sentinel-2's signal to noise of 72 to 174 at reference radiance; to 17 on dark ground and small optics", _noisy),
    "stripes": Change("sensor", (0.002, 0.03), "of the band's mean", "detectors that differ, in lines",
        "detectors are equalised to tenths of a per cent; without it they differ by per cents", _striped),
    "band-shift": Change("sensor", (0.2, 2.5), "pixels", "bands beside each other",
        "Sentinel-2: 0.3 pixels between bands; frame cameras with a lens per band: some pixels", _shifted),
    "levels": Change("sensor", (0.003, 0.0065), "reflectance a level", "256 levels, the brightest cut off",
        "Landsat 4 to 7: 8 bits over reflectances up to 0.8 to 1.7", _levelled),
    "haze": Change("light", (0.05, 1.5), "optical thickness at 550 nm", "light of the air, stronger in the blue",
        "AERONET: 0.05 over clean land, above 1 in smoke and dust; Angstrom exponents of 0.6 to 2.5", _hazy),
    "low-sun": Change("light", (48.0, 80.0), "degrees of sun zenith", "light of a low sun, skylight left",
        "orbits at 10:30 reach 80 degrees in winter; reflectance without the sun's angle is that of 45 degrees", _low_sun),
    "dark-ground": Change("ground", (0.1, 0.85), "of the light", "darker ground under the same clouds",
        "dense conifers and wet dark soils reflect 0.01 to 0.03 in the visible, a fifth of crops and dry soils", _darker),
    "bright-ground": Change("ground", (1.2, 4.0), "times", "brighter ground under the same clouds",
        "dry sand and salt reflect 0.3 to 0.6 in the visible, four times and more what crops do", _brighter),
}  # fmt: skip
"""By the name that recipes have."""
IN_ORDER: tuple[str, ...] = tuple(
    name for when in get_args(When) for name, change in CHANGES.items() if change.when == when
)
"""As they happen to one view: to the ground, to the light, in the instrument."""


def named_changes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names, all of the table where there are none.

    Raises:
        RequestError: one is not in the table.
    """
    for name in names:
        if name not in CHANGES:
            raise RequestError(
                f"{where}: '{name}' is no kind of change{nearest(name, list(CHANGES))}; there are {', '.join(CHANGES)}"
            )
    return tuple(names) or tuple(CHANGES)
