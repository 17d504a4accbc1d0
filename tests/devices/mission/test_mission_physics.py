"""Orbits and cameras against published values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.devices.mission.physics import eclipse_fraction, ground_sampling_m, ground_speed_km_s, period_s

ALTITUDES = st.floats(160, 2000)


@pytest.mark.parametrize(
    ("altitude_km", "minutes"),
    [(420, 93.0), (530, 95.2), (600, 96.7), (705, 98.9), (786, 100.6)],
    ids=["ISS", "Phi-sat-1", "600 km", "Landsat 8", "Sentinel-2"],
)
def test_periods(altitude_km: float, minutes: float) -> None:
    assert period_s(altitude_km) / 60 == pytest.approx(minutes, abs=0.1)


def test_ground_speeds() -> None:
    assert ground_speed_km_s(420) == pytest.approx(7.18, abs=0.01)  # ISS
    assert ground_speed_km_s(705) == pytest.approx(6.75, abs=0.01)  # Landsat 8
    assert ground_speed_km_s(786) == pytest.approx(6.65, abs=0.02)  # Sentinel-2
    assert 4.8 / ground_speed_km_s(500) == pytest.approx(0.68, abs=0.01)  # a tile row of 4.8 km


def test_longest_eclipse_of_the_iss() -> None:
    assert eclipse_fraction(420, 0) * period_s(420) / 60 == pytest.approx(36.0, abs=0.1)


def test_a_dawn_dusk_orbit_stays_in_sunlight() -> None:
    assert eclipse_fraction(700, 90) == eclipse_fraction(700, 75) == 0
    assert eclipse_fraction(700, -30) == eclipse_fraction(700, 30) > 0


@given(ALTITUDES, st.floats(0, 90), st.floats(0, 90))
def test_eclipse_is_a_share_that_falls_with_beta(altitude: float, one: float, other: float) -> None:
    near, far = sorted((one, other))
    assert 0.5 > eclipse_fraction(altitude, near) >= eclipse_fraction(altitude, far) >= 0


@given(ALTITUDES, ALTITUDES)
def test_higher_is_slower(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert period_s(low) <= period_s(high)
    assert ground_speed_km_s(low) >= ground_speed_km_s(high)


def test_ground_sampling_of_a_survey_camera() -> None:
    # A 35 mm lens over 4.4 um pixels: its maker gives height / 80 in cm, rounded.
    assert ground_sampling_m(100, 35, 4.4) == pytest.approx(0.0126, abs=1e-4)
    assert ground_sampling_m(786e3, 600, 7.5) == pytest.approx(9.8, abs=0.1)  # Sentinel-2 MSI's 10 m bands
