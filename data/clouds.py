"""Clouds and the shadows they cast, simulated on a cloud-free or cloudy reflectance image.

A fractal optical thickness tau gives the cloud's opacity ``1 - exp(-k(lambda) tau)``; the cloud is mixed over the ground
spectrally (bright and flat in the visible, absorbing in the short-wave infrared), and its shadow, displaced by
``height / GSD`` pixels away from the sun, takes the direct beam from the ground and leaves path radiance and sky light,
which are larger in the blue. The ranges below were set so that a teacher trained on real clouds sees them: rough fields with hard
edges and snow-like infrared are taken for bright ground. Single-layer mixing, for training views and demos, not for radiometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.fractal import FractalBank

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CloudSettings:
    """Ranges that each simulated cloud layer is drawn from."""

    cover: tuple[float, float] = (0.03, 0.6)
    optical_thickness: tuple[float, float] = (0.5, 9.0)
    edge: tuple[float, float] = (0.5, 2.2)
    height_m: tuple[float, float] = (300.0, 6000.0)
    sun_zenith_deg: tuple[float, float] = (15.0, 72.0)
    shadow_strength: tuple[float, float] = (0.65, 1.0)
    brightness: tuple[float, float] = (0.38, 1.0)


@dataclass(frozen=True)
class CloudLayer:
    """What was simulated: optical thickness (H, W) and the share of direct light the shadow takes (H, W), 0 to 1."""

    optical_thickness: Image
    shadow: Image

    def labels(self, opaque: float = 0.7, dark: float = 0.35) -> npt.NDArray[np.uint8]:
        """Class map (H, W): 0 clear, 1 cloud (tau above ``opaque``), 2 shadow (above ``dark``, not under cloud)."""
        cloud = self.optical_thickness > opaque
        return np.where(cloud, 1, np.where(self.shadow > dark, 2, 0)).astype(np.uint8)


def cloud_spectrum(wavelengths_nm: npt.NDArray[np.floating], rng: np.random.Generator, brightness: float) -> Image:
    """Cloud-top reflectance per band, shape (C,): flat to 1000 nm, then lower by liquid and ice absorption."""
    swir16 = rng.uniform(0.7, 1.05)
    swir22 = swir16 * rng.uniform(0.6, 0.95)
    shape = np.interp(wavelengths_nm, [400, 500, 900, 1100, 1610, 2200], [1.02, 1.0, 0.98, 0.95, swir16, swir22])
    return (brightness * shape * rng.uniform(0.96, 1.04, size=len(shape))).astype(np.float32)


def simulate_clouds(
    image: Image,
    wavelengths_nm: npt.NDArray[np.floating],
    gsd_m: float,
    rng: np.random.Generator,
    bank: FractalBank,
    settings: CloudSettings | None = None,
) -> tuple[Image, CloudLayer]:
    """Adds one cloud layer with its shadow to a reflectance image of shape (C, H, W), H = W.

    Returns the new image, float32 of the same shape, and the layer.
    """
    s = settings or CloudSettings()
    size = image.shape[-1]
    field = bank.draw(rng, size)
    threshold = 1 - rng.uniform(*s.cover)
    ramp = np.clip((field - threshold) / (rng.uniform(*s.edge) * (1 - threshold) + 1e-3), 0, 1)
    peak = float(np.exp(rng.uniform(*np.log(s.optical_thickness))))
    tau = (peak * ramp ** rng.uniform(0.8, 1.6) * (0.5 + bank.draw(rng, size))).astype(np.float32)

    azimuth = rng.uniform(0, 2 * np.pi)
    shadow = _cast(tau, azimuth, gsd_m, rng, s)
    diffuse = np.interp(wavelengths_nm, [450, 560, 660, 860, 1610, 2200], [0.75, 0.56, 0.48, 0.26, 0.19, 0.18])
    diffuse = (diffuse * rng.uniform(0.35, 1.1))[:, None, None].astype(np.float32)
    ground = image * (1 - shadow * (1 - diffuse))

    top = cloud_spectrum(wavelengths_nm, rng, rng.uniform(*s.brightness))[:, None, None]
    relief = _relief(tau, azimuth) * rng.uniform(0.0, 0.25)
    haze = np.interp(wavelengths_nm, [450, 2200], [1.15, 1.15 - rng.uniform(0.0, 0.4)])[:, None, None].astype(
        np.float32
    )
    opacity = 1 - np.exp(-haze * tau)
    mixed = ground * (1 - opacity) + top * (1 + relief) * opacity
    return mixed.astype(np.float32), CloudLayer(tau, shadow)


def _cast(tau: Image, azimuth: float, gsd_m: float, rng: np.random.Generator, s: CloudSettings) -> Image:
    """Share of direct light taken on the ground, (H, W): tau moved away from the sun and attenuated."""
    zenith = np.deg2rad(rng.uniform(*s.sun_zenith_deg))
    height = float(np.exp(rng.uniform(*np.log(s.height_m))))
    size = tau.shape[-1]
    reach = min(height * np.tan(zenith) / gsd_m, 0.6 * size)
    dy, dx = round(-reach * np.cos(azimuth)), round(-reach * np.sin(azimuth))
    # Periodic shift: what leaves the tile on one side is the shadow of a cloud outside it on the other.
    moved = np.roll(tau, (dy, dx), axis=(0, 1))
    return (rng.uniform(*s.shadow_strength) * (1 - np.exp(-moved / np.cos(zenith)))).astype(np.float32)


def _relief(tau: Image, azimuth: float) -> Image:
    """Self-shading of the cloud top, roughly -1 to 1: slope of tau along the sun's direction."""
    gy, gx = np.gradient(np.log1p(tau))
    slope = gy * np.cos(azimuth) + gx * np.sin(azimuth)
    return np.clip(slope * 8, -1, 1).astype(np.float32)
