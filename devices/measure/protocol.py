"""The one measuring protocol: warm up, run, and state everything a latency depends on.

A latency is a distribution (p50, p90, p99, mean in milliseconds), never one number. Ratios between artefacts come
from :func:`measure_interleaved` and :func:`speedup`, which stay fair when other work loads the machine: the artefacts
take short turns in one run, and the ratio is taken turn by turn.

The protocol itself (:mod:`rsedge.devices.onboard.protocol`) also travels to remote devices, so that a figure from a
Jetson and one from this machine mean the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.errors import RequestError
from rsedge.devices.onboard import protocol, stats
from rsedge.devices.onboard.sensors import Sensors
from rsedge.devices.onboard.stats import MAX_SAMPLES, NOISY_RATIO

Inputs = Mapping[str, npt.NDArray[Any]]
Runner = Callable[[Any], Any]
Progress = Callable[[int, float], None]
"""Called with the number of runs so far and the share of the time that is used (0..1)."""

LEAST_TURNS = 5
"""Of each artefact that is measured in turns."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LatencyMs(_Record):
    """Latency of one call in milliseconds."""

    p50: float
    p90: float
    p99: float
    mean: float | None = None


class Spread(_Record):
    """Least, mean and largest reading of a sensor under steady load."""

    min: float
    mean: float
    max: float


class Bursty(_Record):
    """Latency of bursts of runs with pauses between; ``first_ms`` is that of the first run after each pause."""

    runs_per_burst: int
    gap_ms: float
    bursts: int
    latency_ms: LatencyMs
    first_ms: LatencyMs


class Energy(_Record):
    """Energy per item under steady load, from a power rail or counter of the device itself."""

    joules_per_item: float
    joules_per_item_above_idle: float | None = None
    load_w: float
    idle_w: float | None = None
    covers: str = Field(description="which rails or counters the figure adds up")


class Throttling(_Record):
    """Whether the device slowed itself down under steady load, what shows it, and medians before and after (ms)."""

    detected: bool
    reasons: list[str]
    first_ms: float
    last_ms: float


class Measurement(_Record):
    """What was measured, on what, with what; all latencies in milliseconds."""

    provenance: Literal["measured"] = "measured"
    device: str
    runtime: str
    runtime_version: str
    precision: str
    batch: int = Field(default=1, ge=1)
    threads: int | None = Field(default=None, description="inference threads; None: the runtime's own choice")
    warmup: int
    n: int = Field(ge=1, description="timed runs")
    latency_ms: LatencyMs
    throughput_per_s: float = Field(description="items per second")
    throughput_method: Literal["stream", "1/mean"]
    peak_rss_bytes: int | None = Field(
        default=None, description="of a fresh process that loads and runs it, see rss.py; of several, the median"
    )
    peak_rss_readings: list[int] = Field(default_factory=list, description="bytes, one per process, where several ran")
    load_average: float = Field(description="1-minute load average when the measurement began")
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    bursty: Bursty | None = None
    clocks_mhz: dict[str, Spread] = Field(default_factory=dict)
    temperatures_c: dict[str, Spread] = Field(default_factory=dict)
    power_w: dict[str, Spread] = Field(default_factory=dict, description="by rail, where rails are readable")
    energy: Energy | None = Field(default=None, description="None: no power rail or energy counter is readable")
    throttling: Throttling | None = None
    power_mode: str | None = Field(default=None, description="the device's own name of it")
    device_memory_bytes: int | None = Field(default=None, description="GPU memory that the model took")
    noisy: bool = Field(description=f"p90/p50 > {NOISY_RATIO}")
    drift: float = Field(description="median of the last quarter of the runs over that of the first")
    samples_ms: list[float] = Field(default_factory=list, description=f"at most {MAX_SAMPLES}, evenly drawn in time")
    turns_ms: list[float] = Field(default_factory=list, description="median per turn of an interleaved measurement")


class Speedup(_Record):
    """How many times faster a candidate is than a reference: median over turns with a 95 % interval of it."""

    value: float
    low: float
    high: float
    turns: int


def latency_stats(samples_ms: Sequence[float]) -> LatencyMs:
    """Percentiles (linear interpolation) and mean of the samples, milliseconds."""
    return LatencyMs.model_validate(stats.latency(samples_ms))


def measure(
    session: Any,
    inputs: Inputs,
    *,
    seconds: float = 5.0,
    warmup: int = 10,
    threads: int | None = None,
    min_runs: int = 20,
    progress: Progress | None = None,
    labels: Mapping[str, str] | None = None,
    burst_seconds: float = 0.0,
    idle_seconds: float = 0.0,
) -> Measurement:
    """Measures a session, or any callable that takes ``inputs``, for ``seconds`` but at least ``min_runs`` runs.

    ``burst_seconds`` of bursts with pauses between follow; ``idle_seconds`` of rest before it tell the idle power
    where a power rail is readable.

    ``labels`` gives ``device``, ``runtime``, ``runtime_version`` and ``precision`` of a bare callable; of a session
    they are read from it. Throughput comes from ``session.stream`` (async queue) where there is one.

    Raises:
        RequestError: ``seconds`` or ``min_runs`` is not positive.
    """
    _check_protocol(seconds, min_runs)
    sensors = Sensors()
    try:
        found = protocol.measure(
            lambda: session(inputs),
            protocol.Plan(seconds, warmup, min_runs, burst_seconds, idle_seconds),
            sensors,
            batch=_batch(inputs),
            stream=_stream(session, inputs),
            progress=progress,
        )
    finally:
        sensors.close()
    return Measurement.model_validate({**found, **_labels(session, threads, labels)})


def measure_interleaved(
    runners: Mapping[str, Any],
    inputs: Inputs | Mapping[str, Inputs],
    *,
    seconds: float = 5.0,
    warmup: int = 5,
    threads: int | None = None,
    min_runs: int = 20,
    turn_seconds: float = 0.25,
    progress: Progress | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Measurement]:
    """Measures several artefacts in turns within one run, so that their ratios are fair under changing load.

    In each turn an artefact runs once untimed (the caches hold another artefact's weights), then timed for
    ``turn_seconds`` (a fifth of ``seconds`` at most) but at least once. Turns go on, at least :data:`LEAST_TURNS` of
    them, until every artefact has ``seconds`` of timed runs and ``min_runs`` of them, or the whole took twice ``seconds``
    per artefact. ``inputs`` is one set for all, or one set per name.

    Raises:
        RequestError: no runners, or the protocol numbers are not positive.
    """
    _check_protocol(seconds, min_runs)
    if not runners:
        raise RequestError("nothing to measure: no artefacts were given")
    load = os.getloadavg()[0]
    feeds = {name: _inputs_of(name, inputs, runners) for name in runners}
    for name, runner in runners.items():
        for _ in range(warmup):
            runner(feeds[name])
    sensors = Sensors()
    samples: dict[str, list[float]] = {name: [] for name in runners}
    turns: dict[str, list[float]] = {name: [] for name in runners}
    budget = seconds * len(runners)
    start = time.perf_counter()
    while not _enough(samples, turns, seconds, min_runs, time.perf_counter() - start > 2 * budget):
        for name, runner in runners.items():
            taken = _turn(runner, feeds[name], min(turn_seconds, seconds / LEAST_TURNS))
            samples[name].extend(taken)
            turns[name].append(float(np.median(taken)))
        sensors.tick()
        if progress is not None:
            done = sum(min(seconds, sum(s) / 1e3) for s in samples.values())
            progress(sum(map(len, samples.values())), min(1.0, done / budget))
    sensors.sample()
    seen = sensors.report()
    sensors.close()
    result = {}
    for name, runner in runners.items():
        found = {**stats.summary(samples[name]), **seen, "turns_ms": turns[name]}
        found.update(warmup=warmup, batch=_batch(feeds[name]), load_average=load)
        mean_s = found["latency_ms"]["mean"] / 1e3
        stream = _stream(runner, feeds[name])
        rate, method = protocol.throughput(mean_s, found["batch"], stream, min(seconds / 2, 2.0))
        found.update(throughput_per_s=rate, throughput_method=method)
        own = (labels or {}).get(name)
        result[name] = Measurement.model_validate({**found, **_labels(runner, threads, own)})
    return result


def speedup(reference: Measurement, candidate: Measurement, seed: int = 0) -> Speedup:
    """How many times faster ``candidate`` is, from two measurements of one :func:`measure_interleaved` run.

    The ratio is the median over turns; its interval is a bootstrap over turns. Measurements that were not taken in
    turns give the ratio of their medians, with no width claimed beyond it.
    """
    n = min(len(reference.turns_ms), len(candidate.turns_ms))
    if n < 2:
        value = reference.latency_ms.p50 / candidate.latency_ms.p50
        return Speedup(value=value, low=value, high=value, turns=n)
    ratios = np.asarray(reference.turns_ms[:n]) / np.asarray(candidate.turns_ms[:n])
    draws = np.median(np.random.default_rng(seed).choice(ratios, size=(500, n)), axis=1)
    low, high = (float(v) for v in np.quantile(draws, (0.025, 0.975)))
    return Speedup(value=float(np.median(ratios)), low=low, high=high, turns=n)


def _check_protocol(seconds: float, min_runs: int) -> None:
    if not seconds > 0 or min_runs < 1:
        raise RequestError(f"a measurement needs seconds > 0 and at least one run, got {seconds} s and {min_runs} runs")


def _turn(runner: Runner, inputs: Inputs, turn_seconds: float) -> list[float]:
    runner(inputs)
    samples = [protocol.timed_ms(lambda: runner(inputs))]
    while sum(samples) < turn_seconds * 1e3:
        samples.append(protocol.timed_ms(lambda: runner(inputs)))
    return samples


def _enough(
    samples: Mapping[str, list[float]], turns: Mapping[str, list[float]], seconds: float, min_runs: int, late: bool
) -> bool:
    if any(len(t) < LEAST_TURNS for t in turns.values()):
        return False
    if late:
        return True
    return all(sum(s) / 1e3 >= seconds and len(s) >= min_runs for s in samples.values())


def _inputs_of(name: str, inputs: Inputs | Mapping[str, Inputs], runners: Mapping[str, Any]) -> Inputs:
    if set(runners) <= set(inputs) and isinstance(inputs[name], Mapping):
        return inputs[name]  # type: ignore[return-value]
    return inputs  # type: ignore[return-value]


def _stream(session: Any, inputs: Inputs) -> Callable[[Iterator[None]], Iterator[Any]] | None:
    """The session's async queue fed with the same inputs again and again, None where it has no queue."""
    stream = getattr(session, "stream", None)
    return None if stream is None else lambda ticks: stream(inputs for _ in ticks)


def _batch(inputs: Inputs) -> int:
    shapes = [np.shape(v) for v in inputs.values()] if isinstance(inputs, Mapping) else []
    return int(shapes[0][0]) if shapes and shapes[0] else 1


def _labels(session: Any, threads: int | None, labels: Mapping[str, str] | None) -> dict[str, Any]:
    """What names the artefact: from ``labels``, else from the session."""

    def label(key: str, default: str) -> str:
        return str((labels or {}).get(key) or getattr(session, key, None) or default)

    return {
        "device": label("device", "cpu").lower(),
        "runtime": label("runtime", "python"),
        "runtime_version": label("runtime_version", "unknown"),
        "precision": label("precision", "f32"),
        "threads": threads if threads is not None else getattr(session, "threads", None),
    }
