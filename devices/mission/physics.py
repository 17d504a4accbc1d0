"""Circular orbits and frame cameras: the few formulas that a mission budget needs.

Constants: Earth's gravitational parameter and equatorial radius of WGS 84. Altitudes count from the equatorial radius.
"""

from __future__ import annotations

import math

MU = 3.986004418e14
"""Earth's gravitational parameter (m^3/s^2), WGS 84."""
EARTH_RADIUS_M = 6_378_137.0
"""Earth's equatorial radius (m), WGS 84."""


def period_s(altitude_km: float) -> float:
    """Period of a circular orbit (s), by Kepler's third law: 2 pi sqrt(a^3 / mu)."""
    return 2 * math.pi * math.sqrt(_semi_major_m(altitude_km) ** 3 / MU)


def ground_speed_km_s(altitude_km: float) -> float:
    """Speed of the point below the satellite (km/s), the Earth's rotation left out."""
    return 2 * math.pi * EARTH_RADIUS_M / period_s(altitude_km) / 1e3


def eclipse_fraction(altitude_km: float, beta_deg: float) -> float:
    """Share of a circular orbit in the Earth's shadow, taken as a cylinder; 0 where the orbit stays in sunlight.

    ``beta_deg`` is the angle between the orbit's plane and the Sun. Formula: D. G. Gilmore (ed.), Spacecraft Thermal
    Control Handbook, ch. 2: arccos(sqrt(h^2 + 2 R h) / ((R + h) cos beta)) / pi.
    """
    height, cosine = altitude_km * 1e3, math.cos(math.radians(beta_deg))
    side = math.sqrt(height * height + 2 * EARTH_RADIUS_M * height)
    if cosine <= 0 or side >= _semi_major_m(altitude_km) * cosine:
        return 0.0
    return math.acos(side / (_semi_major_m(altitude_km) * cosine)) / math.pi


def ground_sampling_m(height_m: float, focal_length_mm: float, pixel_um: float) -> float:
    """Ground sampling distance (m) of a camera that looks straight down: height times pixel pitch over focal length."""
    return height_m * pixel_um * 1e-3 / focal_length_mm


def _semi_major_m(altitude_km: float) -> float:
    return EARTH_RADIUS_M + altitude_km * 1e3
