"""Ground that the scenes at hand lack, laid into their texture: snow, dark forest, desert, turbid water, burnt and wet soil.

Spectra are those of ``materials.yaml``, which benchmarks/views/materials.py works out and says where each comes from: the dark
and the bright end of a material, as surface reflectance at some wavelengths. A view draws a spectrum between the two, read at
its bands' centre wavelengths; the scene gives the relief. Seen from above the atmosphere, clear air lies in front of it
(:func:`through_clear_air`). What the scene has of clouds stays.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt
import yaml
from scipy import ndimage

from rsedge.data.scenes.changes import CHANGES, LIMITS, Image, Seen, Wavelengths, groundlike

SUN_ZENITH_DEG = (25.0, 70.0)
RELIEF = (0.6, 1.6)
"""Brightness of a pixel over that of what is around it, between which the scene's texture is taken over."""
LIGHT = ("haze", "low-sun")
"""Changes of the light, one or the other or both or none of which fall on a material that is laid."""


@dataclass(frozen=True)
class Material:
    """``dark`` and ``bright`` (W,): surface reflectance at the table's wavelengths ``nm`` (W,)."""

    what: str
    nm: npt.NDArray[np.float64]
    dark: npt.NDArray[np.float64]
    bright: npt.NDArray[np.float64]
    source: str

    def spectrum(self, wavelengths_nm: Wavelengths, lightness: float) -> npt.NDArray[np.float64]:
        """Surface reflectance (C,); ``lightness`` from 0, the dark end, to 1."""
        found = self.dark + lightness * (self.bright - self.dark)
        return np.interp(wavelengths_nm, self.nm, found)


@functools.cache
def materials() -> dict[str, Material]:
    """By name."""
    text = resources.files("rsedge.data.scenes").joinpath("materials.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    nm = np.array(table["nm"], dtype=float)
    return {
        name: Material(row["what"], nm, np.array(row["dark"]), np.array(row["bright"]), row["source"])
        for name, row in table["materials"].items()
    }


def through_clear_air(
    surface: npt.NDArray[np.floating], wavelengths_nm: Wavelengths, sun_zenith_deg: float
) -> npt.NDArray[np.floating]:
    """Surface reflectance (C, ...) as it looks from above the atmosphere, seen from the zenith.

    Rayleigh's optical thickness by Hansen & Travis 1974, scattered once, isotropically; what is scattered down is not lost.
    """
    um = np.asarray(wavelengths_nm, dtype=float).reshape(-1, *(1,) * (surface.ndim - 1)) / 1000
    tau = 0.008569 * um**-4 * (1 + 0.0113 * um**-2 + 0.00013 * um**-4)
    cos_sun = np.cos(np.deg2rad(sun_zenith_deg))
    return np.asarray(tau / (4 * cos_sun) + surface * np.exp(-0.5 * tau * (1 / cos_sun + 1)))


def laid(image: Image, seen: Seen, rng: np.random.Generator, toa: bool) -> tuple[Image, Image]:
    """A scene (C, H, W) with one material laid over a part or all of its ground, and how much of each pixel (H, W) it covers.

    ``toa``: reflectance at the top of the atmosphere is meant.
    """
    names = list(materials())
    material = materials()[names[int(rng.integers(len(names)))]]
    spectrum = material.spectrum(seen.wavelengths_nm, rng.random())[:, None, None]
    size = image.shape[-1]
    ground: npt.NDArray[np.floating] = spectrum * _relief(image) * (0.8 + 0.4 * seen.bank.draw(rng, size))
    if toa:
        ground = through_clear_air(ground, seen.wavelengths_nm, rng.uniform(*SUN_ZENITH_DEG))
    cover = _cover(seen.bank.draw(rng, size), rng) * groundlike(image, seen)[0]
    out = (image * (1 - cover) + ground * cover).clip(*LIMITS).astype(np.float32)
    for kind in LIGHT:
        if rng.random() < 0.5:
            out = CHANGES[kind](out, rng.random(), seen, rng)
    return out, cover.astype(np.float32)


def _relief(image: Image) -> Image:
    """Brightness over that of the surroundings (H, W)."""
    grey = image.mean(0)
    around = ndimage.gaussian_filter(grey, grey.shape[-1] / 16, mode="reflect", truncate=2)
    return np.clip(grey / np.maximum(around, 1e-3), *RELIEF).astype(np.float32)


def _cover(field: Image, rng: np.random.Generator) -> npt.NDArray[np.floating]:
    """0 to 1: a half of the views wholly covered, the others in patches with soft edges."""
    share = rng.choice([1.5, rng.uniform(0.2, 1.0)])
    return np.asarray(np.clip((field - (1 - share)) / rng.uniform(0.02, 0.3) + 0.5, 0, 1))
