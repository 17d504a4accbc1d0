"""Sensors of a device over one measurement: read between the timed runs, never within one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.devices.onboard import stats, sysfs
from rsedge.devices.onboard.tegrastats import Tegrastats

if TYPE_CHECKING:
    from collections.abc import Callable

    Reading = Callable[[], float | None]

EVERY_S = 0.25
CLOCK_DROP = 0.9
"""A clock whose last quarter lies below this share of its first quarter, under the same load, was taken back."""


class Sensors:
    """Clocks (MHz), temperatures (degrees Celsius), power (W), energy counters (J) and throttling of this machine."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._gauges: dict[str, dict[str, Reading]] = {
            "clocks_mhz": sysfs.clocks_mhz(root),
            "temperatures_c": sysfs.temperatures_c(root),
            "power_w": sysfs.rails_w(root),
        }
        self._counters = sysfs.throttle_counters(root)
        self._states = sysfs.throttle_states(root)
        self._rapl = sysfs.rapl_files(root)
        self.unreadable = [n for n, p in self._rapl.items() if sysfs.number(p / "energy_uj") is None]
        self._rapl = {n: p for n, p in self._rapl.items() if n not in self.unreadable}
        wants_tegrastats = root == Path("/") and not self._gauges["power_w"] and Tegrastats.present()
        self._tegrastats = Tegrastats() if wants_tegrastats else None
        self.restart()

    def restart(self) -> None:
        """Forgets the readings so far and starts a new stretch of load."""
        self._began = time.perf_counter()
        self._last = float("-inf")
        self._readings: dict[str, dict[str, list[float]]] = {kind: {} for kind in self._gauges}
        self._count_start = {name: read() for name, read in self._counters.items()}
        self._held: set[str] = set()
        self._joules = dict.fromkeys(self._rapl, 0.0)
        self._energy_uj = {n: sysfs.number(p / "energy_uj") for n, p in self._rapl.items()}

    def tick(self) -> None:
        """Takes a reading if the last one is old enough; to be called between runs."""
        if time.perf_counter() - self._last >= EVERY_S:
            self.sample()

    def sample(self) -> None:
        """Takes a reading of everything now."""
        for kind, gauges in self._gauges.items():
            for name, read in gauges.items():
                self._keep(kind, name, read())
        if self._tegrastats is not None:
            for kind, values in self._tegrastats.read().items():
                for name, value in values.items():
                    self._keep(kind, name, value)
        self._held.update(name for name, read in self._states.items() if (read() or 0) > 0)
        for name, folder in self._rapl.items():
            self._add_energy(name, folder)
        self._last = time.perf_counter()

    def watts(self) -> tuple[float, str] | None:
        """Mean power (W) since :meth:`restart` and what it covers; None where no rail can be read."""
        seconds = time.perf_counter() - self._began
        if self._rapl and seconds > 0:
            return sum(self._joules.values()) / seconds, "RAPL " + " + ".join(sorted(self._rapl))
        rails = {n: sum(v) / len(v) for n, v in self._readings["power_w"].items()}
        for name in sysfs.MODULE_RAILS:
            if name in rails:
                return rails[name], f"rail {name} (whole module)"
        return (sum(rails.values()), "sum of " + " + ".join(sorted(rails))) if rails else None

    def report(self) -> dict[str, Any]:
        """``clocks_mhz``, ``temperatures_c`` and ``power_w`` as spreads by name."""
        return {kind: {name: stats.spread(v) for name, v in values.items()} for kind, values in self._readings.items()}

    def throttle_reasons(self) -> list[str]:
        """What shows that the device slowed itself down since :meth:`restart`; empty where nothing does."""
        reasons = []
        for name, values in self._readings["clocks_mhz"].items():
            first, last = stats.quarters(values)
            if len(values) >= 4 and last < CLOCK_DROP * first:
                reasons.append(f"clock {name} fell from {first:.0f} to {last:.0f} MHz under the same load")
        reasons += [f"{name} grew by {count}" for name, count in self.throttle_counts().items()]
        return reasons + [f"{name} was active" for name in sorted(self._held)]

    def throttle_counts(self) -> dict[str, int]:
        """By how much each counter of throttling grew since :meth:`restart`, by its name; without those that did not."""
        found = {}
        for name, before in self._count_start.items():
            now = self._counters[name]()
            if before is not None and now is not None and now > before:
                found[name] = round(now - before)
        return found

    def close(self) -> None:
        if self._tegrastats is not None:
            self._tegrastats.close()

    def _keep(self, kind: str, name: str, value: float | None) -> None:
        if value is not None:
            self._readings[kind].setdefault(name, []).append(value)

    def _add_energy(self, name: str, folder: Path) -> None:
        """Adds what the counter grew by; it starts anew at ``max_energy_range_uj``."""
        now, before = sysfs.number(folder / "energy_uj"), self._energy_uj[name]
        if now is None or before is None:
            return
        grown = now - before
        if grown < 0:
            grown += sysfs.number(folder / "max_energy_range_uj") or 0.0
        self._joules[name] += max(grown, 0.0) * 1e-6
        self._energy_uj[name] = now
