"""Sensors on trees of files as the kernel shows them: clocks, temperatures, rails, energy counters, throttling."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.devices.onboard import protocol, stats, sysfs, tegrastats
from rsedge.devices.onboard.memory import available_bytes
from rsedge.devices.onboard.sensors import Sensors
from tests.devices import fake_sysfs

ORIN = (
    "11-23-2026 12:00:00 RAM 3050/7620MB (lfb 3x4MB) SWAP 0/3810MB (cached 0MB) CPU [5%@1510,0%@1510,off,1%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 61%@[624] NVDEC off NVJPG off VIC off OFA off APE 200 cpu@48.5C soc2@46.187C "
    "soc0@46.5C gpu@47C tj@48.5C soc1@-256C VDD_IN 4536mW/4410mW VDD_CPU_GPU_CV 654mW/640mW VDD_SOC 1320mW/1310mW"
)
NANO = (
    "RAM 2001/3956MB (lfb 2x1MB) SWAP 33/1978MB (cached 1MB) IRAM 0/252kB(lfb 252kB) CPU [12%@1479,8%@1479,5%@1479,9%@1479] "
    "EMC_FREQ 0% GR3D_FREQ 0% PLL@33C CPU@36.5C PMIC@100C GPU@33C AO@41C thermal@34.75C POM_5V_IN 2532/2480 "
    "POM_5V_GPU 0/0 POM_5V_CPU 405/398"
)


def test_jetson_files(tmp_path: Path) -> None:
    sensors = Sensors(fake_sysfs.jetson(tmp_path))
    sensors.sample()
    report = sensors.report()
    means = {kind: {n: s["mean"] for n, s in values.items()} for kind, values in report.items()}
    assert means["clocks_mhz"] == pytest.approx({"cpu-policy0": 1510.4, "cpu-policy4": 729.6, "gpu": 624.75})
    assert means["temperatures_c"] == {"cpu-thermal": 48.5, "gpu-thermal": 47.25}
    assert means["power_w"] == pytest.approx({"VDD_IN": 5.04, "VDD_CPU_GPU_CV": 1.258})
    assert sensors.watts() == (pytest.approx(5.04), "rail VDD_IN (whole module)")
    assert sensors.throttle_reasons() == [], "neither the fan nor old over-current events are throttling"


def test_old_jetson_files(tmp_path: Path) -> None:
    sensors = Sensors(fake_sysfs.jetson4(tmp_path))
    sensors.sample()
    assert sensors.watts() == (pytest.approx(2.532), "rail POM_5V_IN (whole module)")


def test_rails_without_one_for_the_module_are_added(tmp_path: Path) -> None:
    fake_sysfs.jetson(tmp_path)
    (tmp_path / "sys/class/hwmon/hwmon1/in1_label").write_text("VDD_GPU_SOC\n")
    sensors = Sensors(tmp_path)
    sensors.sample()
    assert sensors.watts() == (pytest.approx(6.298), "sum of VDD_CPU_GPU_CV + VDD_GPU_SOC")


def test_rapl_counts_packages_and_memory_over_a_wrap(tmp_path: Path) -> None:
    """The core domain is inside its package; a counter that starts anew goes on from its largest value."""
    sensors = Sensors(fake_sysfs.intel(tmp_path))
    place = tmp_path / "sys/class/powercap"
    (place / "intel-rapl:0/energy_uj").write_text("262143328840")
    sensors.restart()
    (place / "intel-rapl:0/energy_uj").write_text("2000000")
    (place / "intel-rapl:0:1/energy_uj").write_text("700000")
    sensors.sample()
    found = sensors.watts()
    assert found is not None and found[1] == "RAPL dram-intel-rapl:0:1 + package-0"
    joules = 2.000010 + 0.5
    assert found[0] > 0
    assert sum(sensors._joules.values()) == pytest.approx(joules)


def test_rapl_platform_counter_stands_for_all(tmp_path: Path) -> None:
    assert list(sysfs.rapl_files(fake_sysfs.intel(tmp_path, psys=True))) == ["psys"]


def test_counter_that_only_root_may_read_is_named(tmp_path: Path) -> None:
    """Unreadable as a folder in its place is, also for root."""
    fake_sysfs.intel(tmp_path)
    place = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    place.unlink()
    place.mkdir()
    sensors = Sensors(tmp_path)
    assert sensors.unreadable == ["package-0"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("sys/class/hwmon/hwmon2/oc3_event_cnt", 5, "oc3_event_cnt grew by 3"),
        ("sys/class/thermal/cooling_device1/cur_state", 2, "cpufreq-cpu0 (cooling_device1) was active"),
    ],
)
def test_throttling_shows(tmp_path: Path, name: str, value: int, reason: str) -> None:
    sensors = Sensors(fake_sysfs.jetson(tmp_path))
    fake_sysfs.write(tmp_path, {name: value})
    sensors.sample()
    assert sensors.throttle_reasons() == [reason]
    assert sensors.throttle_counts() == ({"oc3_event_cnt": 3} if "grew" in reason else {})
    sensors.restart()
    assert sensors.throttle_counts() == {}


def test_a_clock_that_is_taken_back_shows(tmp_path: Path) -> None:
    sensors = Sensors(fake_sysfs.jetson(tmp_path))
    for mhz in (624, 624, 624, 620, 510, 306, 306, 306):
        fake_sysfs.write(tmp_path, {"sys/class/devfreq/17000000.gpu/cur_freq": mhz * 1_000_000})
        sensors.sample()
    assert sensors.throttle_reasons() == ["clock gpu fell from 624 to 306 MHz under the same load"]


def test_raspberry_flags_of_the_present_only(tmp_path: Path) -> None:
    name = "sys/devices/platform/soc/soc:firmware/get_throttled"
    fake_sysfs.write(tmp_path, {name: "50000"})
    sensors = Sensors(tmp_path)
    sensors.sample()
    assert sensors.throttle_reasons() == []
    fake_sysfs.write(tmp_path, {name: "50005"})
    sensors.sample()
    assert sensors.throttle_reasons() == ["firmware: under-voltage, capped or throttled was active"]


def test_protocol_tells_energy_and_throttling(tmp_path: Path) -> None:
    """Power while it runs is twice that at rest; the counter of over-current events grows under load."""
    fake_sysfs.jetson(tmp_path)
    calls = iter(range(10_000))

    def run() -> None:
        number = next(calls)
        if number == 0:  # the warm-up, after the rest
            fake_sysfs.write(tmp_path, {"sys/class/hwmon/hwmon1/curr1_input": 2000})
        if number == 6:
            fake_sysfs.write(tmp_path, {"sys/class/hwmon/hwmon2/oc3_event_cnt": 3})
        time.sleep(0.002)

    plan = protocol.Plan(seconds=0.3, warmup=1, min_runs=5, burst_s=0.01, idle_s=0.2)
    found = protocol.measure(run, plan, Sensors(tmp_path), batch=2)
    energy = found["energy"]
    assert energy["idle_w"] == pytest.approx(5.04) and energy["load_w"] == pytest.approx(10.08)
    seconds = found["latency_ms"]["mean"] / 1e3 / 2
    assert energy["joules_per_item"] == pytest.approx(10.08 * seconds)
    assert energy["joules_per_item_above_idle"] == pytest.approx(5.04 * seconds)
    assert found["throttling"]["detected"] and any("oc3" in r for r in found["throttling"]["reasons"])
    assert found["throttling"]["counts"] == {"oc3_event_cnt": 1}
    assert found["bursty"]["bursts"] == 3 and found["bursty"]["first_ms"]["p50"] >= 2
    assert found["cpu_mhz"] == pytest.approx(1120) and found["temperature_c"] == 48.5


def test_no_sensor_is_no_figure(tmp_path: Path) -> None:
    found = protocol.measure(lambda: None, protocol.Plan(0.01, 0, 5, idle_s=0.05), Sensors(tmp_path))
    assert found["energy"] is None and found["cpu_mhz"] is None and found["temperature_c"] is None
    assert found["clocks_mhz"] == found["temperatures_c"] == found["power_w"] == {}


def test_tegrastats_of_orin() -> None:
    found = tegrastats.parse(ORIN)
    assert found["power_w"] == {"VDD_IN": 4.536, "VDD_CPU_GPU_CV": 0.654, "VDD_SOC": 1.32}
    assert found["clocks_mhz"] == {"gpu": 624.0, "cpu": pytest.approx((1510 + 1510 + 729) / 3)}
    assert found["temperatures_c"]["tj"] == 48.5 and "soc1" not in found["temperatures_c"]


def test_tegrastats_of_nano() -> None:
    found = tegrastats.parse(NANO)
    assert found["power_w"] == {"POM_5V_IN": 2.532, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.405}
    assert found["clocks_mhz"] == {"cpu": 1479.0}
    assert found["temperatures_c"]["thermal"] == 34.75


@settings(deadline=None)
@given(st.text(max_size=200))
def test_tegrastats_takes_any_line(line: str) -> None:
    for values in tegrastats.parse(line).values():
        assert all(math.isfinite(v) for v in values.values())


def test_tegrastats_program_is_read_where_there_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name on the PATH that writes lines of the documented form."""
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile :; do echo '{ORIN}'; sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert tegrastats.Tegrastats.present()
    running = tegrastats.Tegrastats()
    try:
        deadline = time.monotonic() + 20
        while not running.read() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.read()["power_w"]["VDD_IN"] == 4.536
    finally:
        running.close()


def test_power_mode() -> None:
    assert tegrastats.parse_power_mode("NV Power Mode: MAXN_SUPER\n2\n") == "MAXN_SUPER"
    assert tegrastats.parse_power_mode("NVPM ERROR: no mode\n") is None


def test_memory_within_a_container(tmp_path: Path) -> None:
    fake_sysfs.write(tmp_path, {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB"})
    assert available_bytes(tmp_path) == 4000000 * 1024
    fake_sysfs.write(tmp_path, {"sys/fs/cgroup/memory.max": 1 << 30, "sys/fs/cgroup/memory.current": 1 << 29})
    assert available_bytes(tmp_path) == 1 << 29
    fake_sysfs.write(tmp_path, {"sys/fs/cgroup/memory.max": "max"})
    assert available_bytes(tmp_path) == 4000000 * 1024


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentile_is_numpys(values: list[float], share: float) -> None:
    import numpy as np

    assert stats.percentile(values, share) == pytest.approx(float(np.percentile(values, 100 * share)), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=1000))
def test_summary_holds_together(samples: list[float]) -> None:
    found = stats.summary(samples)
    latency = found["latency_ms"]
    assert min(samples) <= latency["p50"] <= latency["p90"] <= latency["p99"] <= max(samples)
    assert found["n"] == len(samples) and len(found["samples_ms"]) == min(400, len(samples))
    assert found["samples_ms"][-1] == round(samples[-1], 4)
