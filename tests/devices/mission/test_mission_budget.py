"""Budgets keep to physics: energy is never more than there is, faster is never worse, and each limit can bind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.cli.budget import _range
from rsedge.data.errors import RequestError
from rsedge.devices.mission.budget import Amount, Budget, mission_budget
from rsedge.devices.mission.description import Mission, OrbitMission, OrbitSection, example, load_mission
from rsedge.devices.mission.load import Figure, TileCost, Workload
from rsedge.devices.mission.orbit import orbit_figures
from rsedge.reports import view_budget

WORK = Workload("openvino-x-int8", "openvino", "int8", "x", 256, 4, 2, 10.0, (8.0, 70.0), None, None)


def cost(ms: float = 20, active_w: float = 10, idle_w: float = 4, cap_w: float | None = None, **more: Any) -> TileCost:
    """Measured latency and given power."""
    values: dict[str, Any] = {
        "device": "x",
        "power_mode": None,
        "latency": Figure.exact(ms, "ms", "measured", "test"),
        "idle_w": Figure.exact(idle_w, "W", "given", "test"),
        "dynamic": Figure.exact((active_w - idle_w) * ms, "mJ", "given", "test"),
        "memory": None,
        "usable_memory_mb": 4000.0,
        "cap_w": cap_w,
    }
    return TileCost(**(values | more))


def mission(folder: Path, kind: str = "orbit", *overrides: str) -> Mission:
    path = folder / f"{kind}.yaml"
    path.write_text(example(kind))
    return load_mission(path, overrides)[0]


def budget(given: Mission, own: TileCost | None = None) -> Budget:
    return mission_budget(given, [], WORK, own or cost())


# Missions for property tests: no files.
missions = st.builds(
    lambda sunlit, eclipse, peak, duty, rate, standby, beta: OrbitMission.model_validate(
        {
            "orbit": {"beta_deg": beta},
            "sensor": {"duty_cycle": duty},
            "compute": {"standby_w": standby},
            "power": {"sunlit_w": sunlit, "eclipse_w": eclipse, "peak_w": peak},
            "downlink": {"rate_mbit_s": rate},
        }
    ),
    st.floats(0, 60),
    st.floats(0, 60),
    st.none() | st.floats(0.5, 60),
    st.floats(0.01, 1),
    st.floats(0, 500),
    st.none() | st.floats(0, 20),
    st.floats(-90, 90),
)
watts = st.tuples(st.floats(0, 15), st.floats(0.1, 40))


@settings(max_examples=60, deadline=None)
@given(missions, st.floats(0.1, 5000), st.floats(0.01, 1), watts)
def test_faster_inference_never_lowers_scenes(given_mission: OrbitMission, ms: float, share: float, power: Any) -> None:
    """At the same energy per tile, and at the same power while it runs."""
    idle, above = power
    slow = cost(ms, idle + above, idle)
    same_energy = cost(ms * share, idle + above, idle, dynamic=slow.dynamic)
    same_power = cost(ms * share, idle + above, idle)
    for fast in (same_energy, same_power):
        assert budget(given_mission, fast).result.mid >= budget(given_mission, slow).result.mid * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(missions, st.floats(0.1, 5000), watts)
def test_an_orbit_never_draws_more_than_there_is(given_mission: OrbitMission, ms: float, power: Any) -> None:
    idle, above = power
    found = budget(given_mission, cost(ms, idle + above, idle))
    assert found.energy_wh.mid <= found.energy_available_wh * (1 + 1e-9)
    assert 0 <= found.result.mid <= min(limit.amount.mid for limit in found.limits) * (1 + 1e-9)
    assert found.data["raw"].mid >= 0


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 500), st.floats(0.1, 1000), st.floats(0.01, 1), st.floats(1, 60))
def test_flight_faster_is_never_worse_and_energy_adds_up(
    battery: float, ms: float, share: float, active: float
) -> None:
    from rsedge.devices.mission.description import FlightMission

    flight = FlightMission.model_validate({"flight": {"battery_wh": battery}, "camera": {"infer_gsd_m": 0.1}})
    idle = min(4.0, active)
    slow, fast = (budget(flight, cost(t, active, idle)) for t in (ms, ms * share))
    assert fast.result.mid >= slow.result.mid * (1 - 1e-9)
    for found in (slow, fast):
        hours = found.facts["flight time"].mid / 60
        flown = hours * flight.flight.cruise_w + found.energy_wh.mid
        assert flown == pytest.approx(found.energy_available_wh)


@pytest.mark.parametrize(
    ("overrides", "own", "bottleneck"),
    [
        (["downlink.rate_mbit_s=500", "power.eclipse_w=20"], cost(5), "imaging"),
        (["downlink.rate_mbit_s=500", "power.eclipse_w=20"], cost(2000), "compute"),
        (["downlink.rate_mbit_s=500", "power.eclipse_w=20", "power.peak_w=5"], cost(200, 10), "power"),
        (["downlink.rate_mbit_s=500", "power.sunlit_w=5"], cost(200, 30), "energy"),
        (["downlink.rate_mbit_s=0.1"], cost(5), "downlink"),
        ([], cost(5, memory=Figure.exact(9e3, "MB", "measured", "test")), "memory"),
    ],
)
def test_every_part_can_be_the_bottleneck(tmp_path: Path, overrides: list[str], own: TileCost, bottleneck: str) -> None:
    found = budget(mission(tmp_path, "orbit", *overrides), own)
    assert found.bottleneck == bottleneck
    assert found.result.mid == min(limit.amount.mid for limit in found.limits)
    assert (found.result.mid == 0) == (bottleneck == "memory")


@pytest.mark.parametrize(
    ("overrides", "own", "bottleneck"),
    [
        (["camera.infer_gsd_m=0.1"], cost(5), "flight"),
        ([], cost(500), "compute"),
        (["power.peak_w=4.1"], cost(20, 12), "power"),
        (["link.rate_mbit_s=1"], cost(5), "downlink"),
    ],
)
def test_flight_bottlenecks(tmp_path: Path, overrides: list[str], own: TileCost, bottleneck: str) -> None:
    assert budget(mission(tmp_path, "flight", *overrides), own).bottleneck == bottleneck


def test_an_orbit_worked_out_by_hand(tmp_path: Path) -> None:
    """20 km scenes at 10 m are 2000 pixels: 9 x 9 tiles of 256 with 32 pixels of overlap, 24 ms each with overhead."""
    given_mission = mission(tmp_path, "orbit", "sensor.swath_km=20", "power.eclipse_w=0", "downlink.rate_mbit_s=500")
    found = budget(given_mission, cost(20, 10, 4))
    sunlit_s = (found.facts["period"].mid - found.facts["eclipse"].mid) * 60
    limits = {limit.name: limit.amount.mid for limit in found.limits}
    assert found.facts["tiles per scene"].mid == 81
    assert limits["compute"] == pytest.approx(sunlit_s / (81 * 0.024))
    scenes = 0.1 * found.facts["period"].mid * 60 * found.facts["ground speed"].mid / 20
    assert found.result.mid == pytest.approx(scenes) and found.bottleneck == "imaging"
    assert found.energy_wh.mid == pytest.approx((4 * sunlit_s + scenes * 81 * 6 * 0.024) / 3600)
    assert found.data["raw"].mid == pytest.approx(scenes * 2000 * 2000 * 4 * 2)
    assert found.data["saved"].mid == pytest.approx(scenes * 4e6 * (8 / 2 * 0.3 - 0.2 / 8))
    assert found.provenance == "derived" and "predicted" not in str(found)


def test_a_predicted_latency_makes_a_predicted_interval(tmp_path: Path) -> None:
    latency = Figure(low=1000, mid=2000, high=4000, unit="ms", provenance="predicted", source="test")
    found = budget(mission(tmp_path, "orbit", "downlink.rate_mbit_s=500"), cost(latency=latency))
    assert found.provenance == "predicted" and str(found).startswith("predicted ")
    assert found.result.low < found.result.mid < found.result.high


def test_a_computer_that_may_never_run(tmp_path: Path) -> None:
    found = budget(mission(tmp_path, "orbit", "power.peak_w=3"), cost(20, 10, 4))
    assert found.result.mid == 0 and found.bottleneck == "power"
    dark = budget(mission(tmp_path, "orbit", "power.sunlit_w=1", "power.eclipse_w=1"), cost(20, 10, 4))
    assert dark.result.mid == 0 and dark.energy_wh.mid == 0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    from rsedge.devices.mission.limits import Load

    load = Load(tile=256, overlap=None, pixel_bytes=8, seconds=0.02, dynamic_j=0.1, idle_w=4, standby_w=4, limit_w=None)
    with pytest.raises(RequestError, match=r"sensor\.gsd_m"):
        orbit_figures(OrbitMission(orbit=OrbitSection()), load, None)
    with pytest.raises(RequestError, match="smaller than a tile"):
        budget(mission(tmp_path, "orbit", "sensor.swath_km=1"))


def test_a_gsd_that_the_model_was_not_made_for_is_noted(tmp_path: Path) -> None:
    assert any("--any-gsd" in note for note in budget(mission(tmp_path, "flight")).notes)
    assert not any("--any-gsd" in note for note in budget(mission(tmp_path)).notes)


def test_a_filter_that_spares_most_tiles_lets_more_scenes_through(tmp_path: Path) -> None:
    limits = ["downlink.rate_mbit_s=500", "power.eclipse_w=20"]
    spared = [*limits, "compute.filter_spares=0.6", "compute.filter_ms=100"]
    plain, filtered = (budget(mission(tmp_path, "orbit", *given), cost(2000)) for given in (limits, spared))
    assert filtered.result.mid == pytest.approx(plain.result.mid / (1 - 0.6 + 100 / 2000), rel=0.02)
    assert filtered.energy_wh.mid <= filtered.energy_available_wh * (1 + 1e-9)
    with pytest.raises(RequestError, match="filter_spares needs filter_ms"):
        mission(tmp_path, "orbit", "compute.filter_spares=0.6")


batteries = st.tuples(st.floats(0.5, 200), st.floats(0.05, 1), st.floats(0.5, 1))


def with_battery(given_mission: OrbitMission, wh: float, depth: float, charge: float) -> OrbitMission:
    power = {"battery_wh": wh, "depth_of_discharge": depth, "charge_efficiency": charge}
    return given_mission.model_copy(update={"power": given_mission.power.model_copy(update=power)})


@settings(max_examples=80, deadline=None)
@given(missions, batteries, st.floats(0.1, 5000), watts)
def test_a_battery_is_never_drawn_too_deep_and_sunlight_fills_it_again(
    given_mission: OrbitMission, battery: tuple[float, float, float], ms: float, power: Any
) -> None:
    own = cost(ms, sum(power), power[0])
    balanced = with_battery(given_mission, *battery)
    found, without = budget(balanced, own), budget(given_mission, own)
    assert found.facts["depth of discharge"].mid <= battery[1] * (1 + 1e-9)
    assert found.facts["left in sunlight after charging"].mid >= -1e-6
    assert found.energy_wh.mid <= found.energy_available_wh * (1 + 1e-9) + 1e-9
    energy = {
        n: next(x.amount.mid for x in b.limits if x.name == "energy")
        for n, b in (("with", found), ("without", without))
    }
    assert energy["with"] <= energy["without"] * (1 + 1e-9)
    larger = budget(with_battery(given_mission, battery[0] * 2, *battery[1:]), own)
    assert larger.result.mid >= found.result.mid * (1 - 1e-9)


def test_what_the_shadow_draws_is_missing_in_sunlight() -> None:
    """By hand, per hour of orbit: 0.6 h in sunlight at 10 W, 5 W drawn all the time: 0.4 h x 5 W = 2 Wh out of the battery, 2.5 Wh
    into it at 80 %, of 6 - 3 Wh that sunlight leaves."""
    given_mission = OrbitMission.model_validate(
        {
            "orbit": {"eclipse_share": 0.4}, "compute": {"standby_w": 5.0},
            "power": {"sunlit_w": 10.0, "eclipse_w": 5.0, "battery_wh": 20.0, "charge_efficiency": 0.8},
            "downlink": {"rate_mbit_s": 0.0},
        }
    )  # fmt: skip
    found = budget(given_mission, cost(20, 8, 5))
    hours = found.facts["period"].mid / 60
    assert found.result.mid == 0 and found.bottleneck == "downlink"
    assert found.facts["drawn from the battery in shadow"].mid == pytest.approx(0.4 * 5 * hours)
    assert found.facts["depth of discharge"].mid == pytest.approx(0.1 * hours)
    assert found.facts["left in sunlight after charging"].mid == pytest.approx((6 - 3 - 2.5) * hours)


def test_a_battery_too_small_for_the_shadow_leaves_the_computer_off_there() -> None:
    given_mission = with_battery(
        OrbitMission.model_validate({"orbit": {}, "power": {"sunlit_w": 20.0, "eclipse_w": 10.0}}), 1.0, 0.3, 0.9
    )
    found = budget(given_mission)
    assert found.facts["drawn from the battery in shadow"].mid == 0
    assert found.facts["time with power"].mid < found.facts["period"].mid


def test_storage_holds_what_waits_for_a_pass(tmp_path: Path) -> None:
    free = budget(mission(tmp_path, "orbit", "downlink.rate_mbit_s=1000"))
    waits = free.facts["waiting from one pass to the next"].mid
    small = budget(mission(tmp_path, "orbit", "downlink.rate_mbit_s=1000", f"storage.capacity_gb={waits / 4}"))
    assert small.bottleneck == "storage" and small.result.mid == pytest.approx(free.result.mid / 4)
    slow = budget(mission(tmp_path, "orbit", "storage.capacity_gb=10000", "downlink.rate_mbit_s=1"))
    lost = slow.facts["never sent, if all that can be is worked off"].mid
    assert slow.facts["storage is full by that after"].mid == pytest.approx(10000 / lost)
    assert "storage is full by that after" not in free.facts


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 1e9), st.floats(0, 1e-3))
def test_an_amount_with_an_interval_has_the_word_however_it_is_rounded(mid: float, share: float) -> None:
    exact = Amount(low=mid, mid=mid, high=mid, unit="Wh")
    spread = Amount(low=mid * (1 - share), mid=mid, high=mid * (1 + share), unit="Wh")
    shown = (_range, view_budget._amount, lambda amount: _range(amount, 1e6))
    for show in shown:
        assert "predicted" not in show(exact)
        assert ("predicted" in show(spread)) == (spread.low < spread.high) == (not spread.is_exact)


def test_what_nobody_gave_is_told_with_what_it_would_do(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("orbit: {}\n")

    def of(*overrides: str) -> Budget:
        return mission_budget(*load_mission(path, ["sensor.gsd_m=10", *overrides]), WORK, cost())

    found = of()
    names = [one.name for one in found.assumptions]
    assert names[0] == "downlink.rate_mbit_s" and "sensor.duty_cycle" not in names  # imaging does not bind
    swings = [one.result.high - one.result.low for one in found.assumptions]
    assert swings == sorted(swings, reverse=True)
    assert found.assumed is not None and found.assumed.low < min(one.result.low for one in found.assumptions)
    first = found.assumptions[0]
    for value, wanted in ((first.low, first.result.low), (first.high, first.result.high)):
        assert of(f"{first.name}={value}").result.mid == pytest.approx(wanted)
    given_rate = of("downlink.rate_mbit_s=5")
    assert "downlink.rate_mbit_s" not in [one.name for one in given_rate.assumptions]
    assert given_rate.result == found.result
