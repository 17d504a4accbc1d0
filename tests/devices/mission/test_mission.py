"""Mission files: the examples hold every default, and wrong ones are refused by file, line and field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from rsedge.data.errors import RequestError
from rsedge.devices.mission.description import (
    KINDS,
    FlightMission,
    FlightSection,
    Mission,
    MissionInput,
    OrbitMission,
    OrbitSection,
    assumed_of,
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


def fields(mission: Mission) -> Iterator[tuple[str, str, FieldInfo]]:
    """Section, name and field of every input."""
    for section in type(mission).model_fields:
        if section != "name":
            of = type(getattr(mission, section))
            yield from ((section, name, field) for name, field in of.model_fields.items())


def inputs_of(path: Path, *overrides: str) -> dict[str, MissionInput]:
    return {row.name: row for row in load_mission(path, overrides)[1]}


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_assumed_if_and_only_if_a_range_stands_for_it(tmp_path: Path, kind: str) -> None:
    """In every word of it: what it is, what the example file says, and how its value compares with what is usual."""
    mission, rows = load_mission(write(tmp_path, f"{kind}: {{}}\n"))
    by_name, lines = {row.name: row for row in rows}, example(kind).splitlines()
    assert set(by_name) == {f"{section}.{name}" for section, name, _ in fields(mission)}
    for section, name, field in fields(mission):
        row, stands = by_name[f"{section}.{name}"], assumed_of(field)
        (line,) = [one for one in _section(lines, section) if one.startswith(f"  {name}:")]
        assert "assum" not in (field.description or "")
        assert (row.assumed is not None) == ("assumed" in row.note) == ("assumed" in line) == (stands is not None)
        if stands is not None:
            assert isinstance(row.value, float) and stands.low <= row.value <= stands.high and stands.low < stands.high
            assert f"usually {stands.low:g} to {stands.high:g}" in row.note and row.assumed == (stands.low, stands.high)
    assert "assumed, as Phi-sat-1, usually" in by_name["results.discard_share"].note


def _section(lines: list[str], name: str) -> list[str]:
    first = lines.index(f"{name}:") + 1
    length = next((n for n, line in enumerate(lines[first:]) if not line.startswith("  ")), None)
    return lines[first:] if length is None else lines[first : first + length]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["file", "value", "section", "import"])
def test_what_is_given_is_given_whatever_its_value(tmp_path: Path, kind: str, way: str) -> None:
    """The default itself too, in a file, by ``--set`` of it or of its section, and in a file that is imported."""
    mission, _ = load_mission(write(tmp_path, f"{kind}: {{}}\n"))
    for section, name, _ in fields(mission):
        value = json.dumps(getattr(getattr(mission, section), name))
        bare = {f"{kind}": "{}", section: "{}"}
        overrides = []
        if way == "file":
            bare[section] = f"{{{name}: {value}}}"
        elif way == "import":
            (tmp_path / "own.yaml").write_text(f"{name}: {value}\n")
            bare[section] = "{$import: own.yaml}"
        else:
            overrides = [f"{section}.{name}={value}" if way == "value" else f"{section}={{{name}: {value}}}"]
        path = write(tmp_path, "".join(f"{key}: {one}\n" for key, one in bare.items()))
        found = inputs_of(path, *overrides)
        row = found.pop(f"{section}.{name}")
        assert (row.assumed, row.origin != "default", "assumed" in row.note) == (None, True, False), row
        assert {one.origin for one in found.values()} == {"default"}


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
