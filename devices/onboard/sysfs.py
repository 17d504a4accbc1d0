"""Sensors that Linux shows as files: clocks, temperatures, power rails, energy counters and throttling counters.

Paths follow the kernel's documentation (cpufreq, devfreq, hwmon, thermal, powercap) and NVIDIA's Jetson guide (INA3221 under
hwmon since JetPack 5, under iio before; over-current counters ``oc*_event_cnt``). ``root`` is ``/`` but in tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

MODULE_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that carry all of a Jetson module's power; where there is none, the rails are added up."""


def number(path: Path) -> float | None:
    """A sensor file's number; None where the file is gone, silent or holds no number (sensors come and go)."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def text(path: Path) -> str:
    """A sensor file's text, empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def scaled(path: Path, factor: float) -> Callable[[], float | None]:
    """Reads a file and multiplies its number."""

    def read() -> float | None:
        value = number(path)
        return None if value is None else value * factor

    return read


def clocks_mhz(root: Path) -> dict[str, Callable[[], float | None]]:
    """Current clocks (MHz) of CPU clusters and of GPUs and other devices with devfreq."""
    found: dict[str, Callable[[], float | None]] = {}
    for policy in sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*")):
        found[f"cpu-{policy.name}"] = scaled(policy / "scaling_cur_freq", 1e-3)
    for device in sorted(root.glob("sys/class/devfreq/*")):
        found[re.sub(r"^[0-9a-f]+\.", "", device.name)] = scaled(device / "cur_freq", 1e-6)
    if not found and "cpu MHz" in text(root / "proc/cpuinfo"):
        found["cpu"] = lambda: _cpuinfo_mhz(root)
    return {name: read for name, read in found.items() if read() is not None}


def temperatures_c(root: Path) -> dict[str, Callable[[], float | None]]:
    """Temperatures (degrees Celsius) of thermal zones and hwmon chips."""
    found: dict[str, Callable[[], float | None]] = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        found[text(zone / "type") or zone.name] = scaled(zone / "temp", 1e-3)
    for place in sorted(root.glob("sys/class/hwmon/hwmon*/temp*_input")):
        label = text(place.with_name(place.name.replace("_input", "_label"))) or place.name.split("_")[0]
        found[f"{text(place.parent / 'name')} {label}"] = scaled(place, 1e-3)
    return {name: read for name, read in found.items() if read() is not None}


def rails_w(root: Path) -> dict[str, Callable[[], float | None]]:
    """Power (W) of each rail that an INA3221 monitor measures."""
    found: dict[str, Callable[[], float | None]] = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if text(chip / "name") == "ina3221":
            for label in sorted(chip.glob("in*_label")):
                channel = re.sub(r"\D", "", label.name)
                if (chip / f"curr{channel}_input").exists() and "sum of" not in text(label):
                    found[text(label)] = _volt_ampere(chip / f"in{channel}_input", chip / f"curr{channel}_input")
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*")):
        channel = label.name.rpartition("_")[2]
        found[text(label)] = scaled(label.with_name(f"in_power{channel}_input"), 1e-3)
    return {name: read for name, read in found.items() if name and read() is not None}


def rapl_files(root: Path) -> dict[str, Path]:
    """Energy counters of Intel and AMD processors (RAPL): ``psys`` where there is one (the whole platform), else the
    packages and their memory. Name -> folder."""
    folders = [p for p in sorted(root.glob("sys/class/powercap/intel-rapl:*")) if (p / "energy_uj").exists()]
    names = {text(p / "name") + (f"-{p.name}" if text(p / "name") == "dram" else ""): p for p in folders}
    if "psys" in names:
        return {"psys": names["psys"]}
    return {n: p for n, p in names.items() if n.startswith(("package", "dram"))}


def throttle_counters(root: Path) -> dict[str, Callable[[], float | None]]:
    """Counters that only grow when the device slows itself down: thermal throttling of CPUs, over-current events."""
    found: dict[str, Callable[[], float | None]] = {}
    cpu0 = root / "sys/devices/system/cpu/cpu0/thermal_throttle"
    for name in ("core_throttle_count", "package_throttle_count"):
        found[name] = scaled(cpu0 / name, 1)
    for place in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")):
        found[place.name] = scaled(place, 1)
    return {name: read for name, read in found.items() if read() is not None}


def throttle_states(root: Path) -> dict[str, Callable[[], float | None]]:
    """States above 0 while the device holds itself back: cooling devices but fans, and the Raspberry Pi's own flags."""
    found: dict[str, Callable[[], float | None]] = {}
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = text(device / "type")
        if kind and "fan" not in kind.lower():
            found[f"{kind} ({device.name})"] = scaled(device / "cur_state", 1)
    flags = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    if flags.exists():
        found["firmware: under-voltage, capped or throttled"] = lambda: _raspberry(flags)
    return {name: read for name, read in found.items() if read() is not None}


def _cpuinfo_mhz(root: Path) -> float | None:
    values = [float(v) for v in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text(root / "proc/cpuinfo"), re.M)]
    return sum(values) / len(values) if values else None


def _volt_ampere(millivolt: Path, milliampere: Path) -> Callable[[], float | None]:
    def read() -> float | None:
        volt, ampere = number(millivolt), number(milliampere)
        return None if volt is None or ampere is None else volt * ampere * 1e-6

    return read


def _raspberry(flags: Path) -> float | None:
    """The four bits for the present (0 to 3); the bits for the past stay set until a reboot."""
    try:
        return float(int(text(flags), 16) & 0xF)
    except ValueError:
        return None
