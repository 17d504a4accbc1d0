"""Simulated clouds: what their labels mean, and that shadows are those of the sky that is there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.scenes.clouds import CloudLayer, CloudSettings, simulate_clouds
from rsedge.data.scenes.fractal import FractalBank

BANDS = np.array([490.0, 560.0, 665.0, 842.0])
BANK = FractalBank(0, size=128, count=6)
GROUND = np.full((4, 64, 64), 0.2, dtype=np.float32)
FLAT = CloudSettings(cover=(0.3, 0.3), height_m=(300.0, 300.0), sun_zenith_deg=(45.0, 45.0), shadow_strength=(1.0, 1.0))


@given(
    tau=st.floats(0, 9, width=32), shadow=st.floats(0, 1, width=32), low=st.floats(0, 0.5), gap=st.floats(0, 0.5),
)  # fmt: skip
def test_labels_say_cloud_then_shadow_then_clear_and_nothing_between_the_limits(
    tau: float, shadow: float, low: float, gap: float
) -> None:
    low, high = float(np.float32(low)), float(np.float32(low + gap))
    settings = CloudSettings(label_thickness=(low, high), label_shadow=(low, high))
    layer = CloudLayer(np.full((1, 1), tau, np.float32), np.full((1, 1), shadow, np.float32))
    (found,) = layer.labels(settings).ravel().tolist()
    if tau > high:
        assert found == 1
    elif tau > low:
        assert found == 255
    else:
        assert found == (2 if shadow > high else 255 if shadow > low else 0)


def test_a_shadow_is_its_cloud_moved_without_a_seam() -> None:
    """At 10 m, a cloud at 300 m under a sun at 45 degrees shades the ground 30 pixels away from itself."""
    for seed in range(12):
        _, layer = simulate_clouds(GROUND, BANDS, 10.0, np.random.default_rng(seed), BANK, FLAT)
        expected = 1 - np.exp(-layer.optical_thickness / np.cos(np.deg2rad(45.0)))
        moves = [(dy, dx) for dy in range(-31, 32) for dx in range(-31, 32) if 29 <= np.hypot(dy, dx) <= 31]
        gaps = [_gap(layer.shadow, expected, dy, dx) for dy, dx in moves]
        assert min(gaps) < 1e-5, seed
        # The sky is continuous, so is what it casts: no step where the image's own clouds end.
        steps = max(np.abs(np.diff(layer.shadow, axis=axis)).max() for axis in (0, 1))
        clouds = max(np.abs(np.diff(expected, axis=axis)).max() for axis in (0, 1))
        assert steps <= max(0.5, 2 * clouds)


def _gap(shadow: np.ndarray, cast: np.ndarray, dy: int, dx: int) -> float:
    """Largest difference where the shadow of a pixel of the image lies in the image."""
    size = len(shadow)
    there = np.s_[max(dy, 0) : size + min(dy, 0), max(dx, 0) : size + min(dx, 0)]
    here = np.s_[max(-dy, 0) : size + min(-dy, 0), max(-dx, 0) : size + min(-dx, 0)]
    return float(np.abs(shadow[there] - cast[here]).max())


def test_path_reflectance_lifts_clear_ground_most_in_the_blue() -> None:
    settings = dataclasses.replace(FLAT, path_reflectance=(0.04, 0.04))
    image, layer = simulate_clouds(GROUND, BANDS, 10.0, np.random.default_rng(3), BANK, settings)
    clear = (layer.optical_thickness == 0) & (layer.shadow == 0)
    assert clear.any()
    assert image[:, clear].mean(1) - 0.2 == pytest.approx(0.04 * (550 / BANDS) ** 4, rel=1e-3)
