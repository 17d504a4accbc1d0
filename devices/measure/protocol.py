"""The one measuring protocol: warm up, run, and state everything a latency depends on.

A latency is a distribution (p50, p90, p99, mean in milliseconds), never one number. Ratios between artefacts come
from :func:`measure_interleaved` and :func:`speedup`, which stay fair when other work loads the machine: the artefacts
take short turns in one run, and the ratio is taken turn by turn: by the wall clock, or by processor time where other processes
keep the machine busy, since they hold up long runs far more often than short ones.

The protocol itself (:mod:`rsedge.devices.onboard.protocol`) also travels to remote devices, so that a figure from a
Jetson and one from this machine mean the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.errors import RequestError
from rsedge.devices.measure.load import SPINNING, SPUN_OUT_S, TOO_BUSY, Clock, Load, Ticks
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
    """Whether the device slowed itself down under steady load, what shows it, by how much its counters of that grew, and medians
    before and after (ms)."""

    detected: bool
    reasons: list[str]
    counts: dict[str, int] = Field(default_factory=dict, description="of throttling that grew, name -> by how much")
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
    processor_ms: list[float] = Field(
        default_factory=list,
        description="the same turns in mean processor time per run; empty where another device computes, or threads spin",
    )
    load: Load | None = Field(default=None, description="what else the machine did during an interleaved measurement")

    def without_samples(self) -> Measurement:
        """The record for reports and bundles: figures alone."""
        return self.model_copy(update={"samples_ms": [], "turns_ms": [], "processor_ms": []})


class Speedup(_Record):
    """How many times faster a candidate is than a reference: median over turns with a 95 % interval of it, by which clock."""

    value: float
    low: float
    high: float
    turns: int
    clock: Clock = "wall clock"


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
    named = {name: _labels(runner, threads, (labels or {}).get(name)) for name, runner in runners.items()}
    for name, runner in runners.items():
        for _ in range(warmup):
            runner(feeds[name])
    sensors, taken = Sensors(), {name: _Taken() for name in runners}
    budget = seconds * len(runners)
    before, start = Ticks.now(), time.perf_counter()
    while not _enough(taken.values(), seconds, min_runs, time.perf_counter() - start > 2 * budget):
        for name, runner in runners.items():
            taken[name].add(*_turn(runner, feeds[name], min(turn_seconds, seconds / LEAST_TURNS)))
            if _spins(named[name]):
                time.sleep(SPUN_OUT_S)
        sensors.tick()
        if progress is not None:
            done = sum(min(seconds, sum(t.samples) / 1e3) for t in taken.values())
            progress(sum(len(t.samples) for t in taken.values()), min(1.0, done / budget))
    meanwhile = Ticks.now().since(before)
    sensors.sample()
    same = {**sensors.report(), "load": meanwhile, "load_average": load, "warmup": warmup}
    sensors.close()
    return {
        name: _measurement(taken[name], runner, feeds[name], min(seconds / 2, 2.0), {**same, **named[name]})
        for name, runner in runners.items()
    }


@dataclass
class _Taken:
    """What was taken of one artefact in turns so far (ms): runs, their median a turn, and mean processor time of these."""

    samples: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, runs: Sequence[float], processor: float) -> None:
        self.samples.extend(runs)
        self.turns.append(float(np.median(runs)))
        self.processor.append(processor)


def _measurement(taken: _Taken, runner: Any, inputs: Inputs, seconds: float, known: Mapping[str, Any]) -> Measurement:
    """The record of one artefact; its throughput is measured for so many seconds."""
    found, batch = stats.summary(taken.samples), _batch(inputs)
    mean_s = found["latency_ms"]["mean"] / 1e3
    rate, method = protocol.throughput(mean_s, batch, _stream(runner, inputs), seconds)
    alone = known["device"] == "cpu" and not _spins(known)
    found.update(turns_ms=taken.turns, processor_ms=taken.processor if alone else [], batch=batch)
    found.update(throughput_per_s=rate, throughput_method=method)
    return Measurement.model_validate({**found, **known})


def speedup(reference: Measurement, candidate: Measurement, seed: int = 0) -> Speedup:
    """How many times faster ``candidate`` is, from two measurements of one :func:`measure_interleaved` run.

    The ratio is the median over turns; its interval is a bootstrap over turns. It is of the wall clock, or of processor time where
    other processes took more than :data:`TOO_BUSY` of the processors and both were computed on them, by threads that do
    not spin (:data:`SPINNING`); of several threads that is their work together, which is less where a network uses them badly.
    Measurements that were not taken in turns give the ratio of their medians, with no width claimed beyond it.
    """
    clock = _clock(reference, candidate)
    first, second = (m.processor_ms if clock == "processor time" else m.turns_ms for m in (reference, candidate))
    n = min(len(first), len(second))
    if n < 2:
        value = reference.latency_ms.p50 / candidate.latency_ms.p50
        return Speedup(value=value, low=value, high=value, turns=n)
    ratios = np.asarray(first[:n]) / np.asarray(second[:n])
    draws = np.median(np.random.default_rng(seed).choice(ratios, size=(500, n)), axis=1)
    low, high = (float(v) for v in np.quantile(draws, (0.025, 0.975)))
    return Speedup(value=float(np.median(ratios)), low=low, high=high, turns=n, clock=clock)


def _clock(*measured: Measurement) -> Clock:
    busy = any(m.load is not None and (m.load.others or 0.0) > TOO_BUSY for m in measured)
    return "processor time" if busy and all(len(m.processor_ms) > 1 for m in measured) else "wall clock"


def _check_protocol(seconds: float, min_runs: int) -> None:
    if not seconds > 0 or min_runs < 1:
        raise RequestError(f"a measurement needs seconds > 0 and at least one run, got {seconds} s and {min_runs} runs")


def _turn(runner: Runner, inputs: Inputs, turn_seconds: float) -> tuple[list[float], float]:
    """Times of the runs of one turn and their mean processor time (ms)."""
    runner(inputs)
    begun, samples = time.process_time(), [protocol.timed_ms(lambda: runner(inputs))]
    while sum(samples) < turn_seconds * 1e3:
        samples.append(protocol.timed_ms(lambda: runner(inputs)))
    return samples, (time.process_time() - begun) * 1e3 / len(samples)


def _enough(taken: Collection[_Taken], seconds: float, min_runs: int, late: bool) -> bool:
    if any(len(t.turns) < LEAST_TURNS for t in taken):
        return False
    return late or all(sum(t.samples) / 1e3 >= seconds and len(t.samples) >= min_runs for t in taken)


def _inputs_of(name: str, inputs: Inputs | Mapping[str, Inputs], runners: Mapping[str, Any]) -> Inputs:
    if set(runners) <= set(inputs) and isinstance(inputs[name], Mapping):
        return inputs[name]  # type: ignore[return-value]
    return inputs  # type: ignore[return-value]


def _stream(session: Any, inputs: Inputs) -> Callable[[Iterator[None]], Iterator[Any]] | None:
    """The session's async queue fed with the same inputs again and again, None where it has no queue."""
    stream = getattr(session, "stream", None)
    return None if stream is None else lambda ticks: stream(inputs for _ in ticks)


def _spins(named: Mapping[str, Any]) -> bool:
    """Whether threads burn processor time while they wait."""
    return named["runtime"] in SPINNING and named["device"] == "cpu" and named["threads"] != 1


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
