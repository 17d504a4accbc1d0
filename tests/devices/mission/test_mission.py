"""Mission files: the examples hold every default, and wrong ones are refused by file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsedge.data.errors import RequestError
from rsedge.devices.mission.description import (
    FlightMission,
    FlightSection,
    OrbitMission,
    OrbitSection,
    example,
    load_mission,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("kind", "mission"),
    [("orbit", OrbitMission(orbit=OrbitSection())), ("flight", FlightMission(flight=FlightSection()))],
)
def test_the_example_is_the_defaults(tmp_path: Path, kind: str, mission: object) -> None:
    loaded, inputs = load_mission(write(tmp_path, example(kind)))
    assert loaded == mission
    assert all(":" in row.origin for row in inputs)


def test_a_short_mission_says_what_is_default(tmp_path: Path) -> None:
    loaded, inputs = load_mission(write(tmp_path, "orbit:\nsensor:\n  swath_km: 20\n"), ["downlink.rate_mbit_s=50"])
    assert isinstance(loaded, OrbitMission) and loaded.sensor.swath_km == 20 and loaded.downlink.rate_mbit_s == 50
    origin = {row.name: row.origin for row in inputs}
    assert origin["sensor.swath_km"] == f"{tmp_path / 'm.yaml'}:3"
    assert origin["downlink.rate_mbit_s"] == "--set downlink.rate_mbit_s=50"
    assert origin["orbit.altitude_km"] == "default"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("orbit: {altitude_km: 530}\nsensr: {}\n", ":2: sensr: unknown field (nearest: 'sensor')"),
        ("orbit:\n  altitud_km: 530\n", ":2: orbit.altitud_km: unknown field (nearest: 'altitude_km')"),
        ("orbit: {altitude_km: high}\n", ":1: orbit.altitude_km: input should be a valid number; got 'high'"),
        ("orbit: {altitude_km: 42164}\n", "less than or equal to 2000"),
        ("orbit: {}\nflight: {}\n", "this file has both"),
        ("sensor: {}\n", "this file has neither"),
        ("orbit: {}\nresults: {send: maps}\n", "(nearest: 'map')"),
        ("orbit: {}\ncompute: {idle_w: 9, active_w: 5}\n", "active_w (5) is less than idle_w (9)"),
        ("flight: {speed_m_s: 0}\n", "greater than or equal to"),
        ("flight: {speed_m_s: .inf}\n", "flight.speed_m_s"),
        ("- orbit\n", "a mission is a mapping"),
        ("orbit: {altitude_km: 500, altitude_km: 600}\n", "is given twice"),
        ("orbit: 530\n", ":1: orbit"),
    ],
)
def test_wrong_missions(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RequestError) as error:
        load_mission(write(tmp_path, text))
    assert words in str(error.value) and "m.yaml" in str(error.value)


def test_missing_file_names_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--example orbit"):
        load_mission(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="orbit, flight"):
        example("submarine")
