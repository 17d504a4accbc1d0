"""The measuring protocol: warm up, steady load, bursts, throughput, with the sensors read in between.

All durations come from the monotonic clock (``time.perf_counter``): a device whose date is wrong, or is set while it is
measured, gives the same figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from rsedge.devices.onboard import stats
from rsedge.devices.onboard.sensors import Sensors

BURST_RUNS = 8
BURST_GAP_S = 0.25
BURSTS_LEAST = 3


class Plan:
    """How long to measure: seconds of steady load, but at least ``min_runs`` runs, after ``warmup`` runs.

    ``burst_s`` seconds of bursts follow (0: none); before it all, ``idle_s`` seconds of rest tell the idle power.
    """

    def __init__(self, seconds: float, warmup: int, min_runs: int, burst_s: float = 0.0, idle_s: float = 0.0) -> None:
        self.seconds, self.warmup, self.min_runs = seconds, warmup, min_runs
        self.burst_s, self.idle_s = burst_s, idle_s


def measure(
    run: Callable[[], Any],
    plan: Plan,
    sensors: Sensors,
    batch: int = 1,
    stream: Callable[[Iterator[None]], Iterator[Any]] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Measures ``run`` and returns the fields of a measurement record that do not name the model.

    Args:
        batch: items of one run.
        stream: takes an iterator with one element per run and yields a result for each, several in flight.
        progress: called with the number of runs and the share of the time used.
    """
    load = os.getloadavg()[0]
    idle_w = _idle(sensors, plan.idle_s)
    for _ in range(plan.warmup):
        run()
    sensors.restart()
    samples = _steady(run, plan, sensors, progress)
    found = {**stats.summary(samples), **steady_report(sensors, samples, batch, idle_w)}
    found.update(warmup=plan.warmup, batch=batch, load_average=load, bursty=None)
    if plan.burst_s > 0:
        found["bursty"] = _bursty(run, plan.burst_s)
    mean_s = found["latency_ms"]["mean"] / 1e3
    found["throughput_per_s"], found["throughput_method"] = throughput(mean_s, batch, stream, min(plan.seconds / 2, 3))
    return found


def steady_report(sensors: Sensors, samples: list[float], batch: int, idle_w: float | None) -> dict[str, Any]:
    """Sensor ranges, energy and throttling of a stretch of steady load that ends now."""
    sensors.sample()
    report = sensors.report()
    clocks = [s["mean"] for n, s in report["clocks_mhz"].items() if n.startswith("cpu")]
    temperatures = [s["max"] for s in report["temperatures_c"].values()]
    return {
        **report,
        "cpu_mhz": sum(clocks) / len(clocks) if clocks else None,
        "temperature_c": max(temperatures) if temperatures else None,
        "energy": _energy(sensors, sum(samples) / 1e3, len(samples) * batch, idle_w),
        "throttling": _throttling(sensors, samples),
    }


def throughput(
    mean_s: float, batch: int, stream: Callable[[Iterator[None]], Iterator[Any]] | None, seconds: float
) -> tuple[float, str]:
    """Items per second and how that was found: from the stream, or from the mean latency where there is none."""
    if stream is None:
        return batch / mean_s, "1/mean"
    start = time.perf_counter()
    count = sum(1 for _ in stream(_until(start + max(seconds, 3 * mean_s))))
    return count * batch / (time.perf_counter() - start), "stream"


def timed_ms(run: Callable[[], Any]) -> float:
    """Duration of one run in milliseconds."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def _steady(
    run: Callable[[], Any], plan: Plan, sensors: Sensors, progress: Callable[[int, float], None] | None
) -> list[float]:
    samples: list[float] = []
    start = time.perf_counter()
    while True:
        used = time.perf_counter() - start
        if used >= plan.seconds and len(samples) >= plan.min_runs:
            return samples
        samples.append(timed_ms(run))
        sensors.tick()
        if progress is not None:
            progress(len(samples), min(1.0, used / plan.seconds))


def _bursty(run: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Bursts of runs after pauses: the first run after a pause meets cold caches and lowered clocks."""
    first: list[float] = []
    every: list[float] = []
    start = time.perf_counter()
    while len(first) < BURSTS_LEAST or time.perf_counter() - start < seconds:
        time.sleep(BURST_GAP_S)
        burst = [timed_ms(run) for _ in range(BURST_RUNS)]
        first.append(burst[0])
        every.extend(burst)
    return {
        "runs_per_burst": BURST_RUNS,
        "gap_ms": BURST_GAP_S * 1e3,
        "bursts": len(first),
        "latency_ms": stats.latency(every),
        "first_ms": stats.latency(first),
    }


def _idle(sensors: Sensors, seconds: float) -> float | None:
    """Mean power (W) of the device at rest, None where no rail is readable or no time is given."""
    sensors.restart()
    sensors.sample()
    if seconds <= 0 or sensors.watts() is None:
        return None
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        time.sleep(min(0.1, seconds))
        sensors.tick()
    sensors.sample()
    found = sensors.watts()
    return found[0] if found else None


def _energy(sensors: Sensors, busy_s: float, items: int, idle_w: float | None) -> dict[str, Any] | None:
    """Energy per item from the mean power under load; None where no rail is readable."""
    found = sensors.watts()
    if found is None or not items:
        return None
    watts, covers = found
    seconds = busy_s / items
    return {
        "joules_per_item": watts * seconds,
        "joules_per_item_above_idle": None if idle_w is None else (watts - idle_w) * seconds,
        "load_w": watts,
        "idle_w": idle_w,
        "covers": covers,
    }


def _throttling(sensors: Sensors, samples: list[float]) -> dict[str, Any]:
    first, last = stats.quarters(samples)
    reasons = sensors.throttle_reasons()
    if first and last > stats.DRIFT_RATIO * first:
        reasons.insert(0, f"latency rose from {first:.3g} to {last:.3g} ms (medians of the first and last quarter)")
    counts = sensors.throttle_counts()
    return {"detected": bool(reasons), "reasons": reasons, "counts": counts, "first_ms": first, "last_ms": last}


def _until(deadline: float) -> Iterator[None]:
    yield None
    while time.perf_counter() < deadline:
        yield None
