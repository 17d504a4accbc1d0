"""Clouds and the shadows they cast, simulated on a cloud-free or cloudy reflectance image.

A fractal optical thickness tau gives the cloud's opacity ``1 - exp(-k(lambda) tau)``; the cloud is mixed over the ground
spectrally (bright and flat in the visible, absorbing in the short-wave infrared), and its shadow, displaced by
``height / GSD`` pixels away from the sun, takes the direct beam from the ground and leaves path radiance and sky light,
which are larger in the blue. The default ranges were set so that teachers trained on real clouds see most of them: rough fields
with hard edges, tops without relief, an overcast without a gap and snow-like infrared are taken for bright ground. Single-layer
mixing, for training views and demos, not for radiometry.

What a simulated label means: *cloud* where the layer hides a good part of the ground, *shadow* where it takes a good part of the
direct light, *clear* where it does next to neither. What lies between the two limits has no label (255), as in masks drawn by
hand: nobody can say where a veil begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.scenes.fractal import FractalBank

Image = npt.NDArray[np.float32]
UNLABELLED = 255


@dataclass(frozen=True)
class CloudSettings:
    """Ranges that each simulated cloud layer is drawn from."""

    cover: tuple[float, float] = (0.03, 0.6)
    optical_thickness: tuple[float, float] = (0.5, 9.0)
    edge: tuple[float, float] = (0.5, 2.2)
    profile: tuple[float, float] = (0.8, 1.6)
    structure: tuple[float, float] = (0.5, 4.0)
    height_m: tuple[float, float] = (300.0, 6000.0)
    sun_zenith_deg: tuple[float, float] = (15.0, 72.0)
    shadow_strength: tuple[float, float] = (0.65, 1.0)
    brightness: tuple[float, float] = (0.38, 1.0)
    path_reflectance: tuple[float, float] = (0.0, 0.0)
    label_thickness: tuple[float, float] = (0.03, 0.2)
    label_shadow: tuple[float, float] = (0.1, 0.35)


@dataclass(frozen=True)
class CloudLayer:
    """What was simulated: optical thickness (H, W) and the share of direct light the shadow takes (H, W), 0 to 1."""

    optical_thickness: Image
    shadow: Image

    def labels(self, settings: CloudSettings | None = None) -> npt.NDArray[np.uint8]:
        """Class map (H, W): 0 clear, 1 cloud, 2 shadow on ground in view, 255 between the settings' limits."""
        s = settings or CloudSettings()
        cloud = _graded(self.optical_thickness, s.label_thickness)
        shadow = _graded(self.shadow, s.label_shadow)
        ground = np.where(shadow == 1, 2, shadow)
        return np.where(cloud == 0, ground, cloud).astype(np.uint8)


def _graded(values: Image, limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """0 up to the lower limit, 1 above the upper one, 255 between."""
    low, high = limits
    return np.where(values > high, 1, np.where(values > low, UNLABELLED, 0)).astype(np.uint8)


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

    ``path_reflectance`` (at 550 nm, falling with the fourth power of the wavelength) is the light of the clear air in front of the
    ground: with it a surface reflectance looks as it does from above the atmosphere. Shadows of clouds outside the image fall
    into it too.

    Returns the new image, float32 of the same shape, and the layer.
    """
    s = settings or CloudSettings()
    size = image.shape[-1]
    azimuth, zenith = rng.uniform(0, 2 * np.pi), float(np.deg2rad(rng.uniform(*s.sun_zenith_deg)))
    dy, dx = _shift(azimuth, zenith, gsd_m, size, rng, s)
    # The sky is larger than the image: what casts a shadow into it may itself lie outside.
    sky = _sky(size + max(abs(dy), abs(dx)), rng, bank, s)
    tau = _window(sky, max(dy, 0), max(dx, 0), size)
    casting = _window(sky, max(-dy, 0), max(-dx, 0), size)
    shadow = (rng.uniform(*s.shadow_strength) * (1 - np.exp(-casting / np.cos(zenith)))).astype(np.float32)
    diffuse = np.interp(wavelengths_nm, [450, 560, 660, 860, 1610, 2200], [0.75, 0.56, 0.48, 0.26, 0.19, 0.18])
    diffuse = (diffuse * rng.uniform(0.35, 1.1))[:, None, None].astype(np.float32)
    path = rng.uniform(*s.path_reflectance) * (550.0 / wavelengths_nm) ** 4
    ground = image * (1 - shadow * (1 - diffuse)) + path[:, None, None].astype(np.float32)

    top = cloud_spectrum(wavelengths_nm, rng, rng.uniform(*s.brightness))[:, None, None]
    relief = _relief(tau, azimuth) * rng.uniform(0.0, 0.25)
    haze = np.interp(wavelengths_nm, [450, 2200], [1.15, 1.15 - rng.uniform(0.0, 0.4)])[:, None, None].astype(
        np.float32
    )
    opacity = 1 - np.exp(-haze * tau)
    mixed = ground * (1 - opacity) + top * (1 + relief) * opacity
    return mixed.astype(np.float32), CloudLayer(tau, shadow)


def _sky(size: int, rng: np.random.Generator, bank: FractalBank, s: CloudSettings) -> Image:
    """Optical thickness (size, size) of one cloud layer."""
    field = bank.draw(rng, size, _log_uniform(rng, s.structure))
    threshold = 1 - rng.uniform(*s.cover)
    ramp = np.clip((field - threshold) / (rng.uniform(*s.edge) * (1 - threshold) + 1e-3), 0, 1)
    relief = 0.5 + bank.draw(rng, size, _log_uniform(rng, s.structure))
    tau = _log_uniform(rng, s.optical_thickness) * ramp ** rng.uniform(*s.profile) * relief
    return tau.astype(np.float32)


def _shift(
    azimuth: float, zenith: float, gsd_m: float, size: int, rng: np.random.Generator, s: CloudSettings
) -> tuple[int, int]:
    """Rows and columns from a cloud to its shadow, away from the sun; at most 0.6 of the image."""
    reach = min(_log_uniform(rng, s.height_m) * np.tan(zenith) / gsd_m, 0.6 * size)
    return round(-reach * np.cos(azimuth)), round(-reach * np.sin(azimuth))


def _window(sky: Image, row: int, col: int, size: int) -> Image:
    return sky[row : row + size, col : col + size]


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _relief(tau: Image, azimuth: float) -> Image:
    """Self-shading of the cloud top, roughly -1 to 1: slope of tau along the sun's direction."""
    gy, gx = np.gradient(np.log1p(tau))
    slope = gy * np.cos(azimuth) + gx * np.sin(azimuth)
    return np.clip(slope * 8, -1, 1).astype(np.float32)
