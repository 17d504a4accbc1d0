"""The one measuring protocol: warm up, run, and state everything a latency depends on.

A latency is a distribution (p50, p90, p99, mean in milliseconds), never one number. Ratios between artefacts come
from :func:`measure_interleaved` and :func:`speedup`, which stay fair when other work loads the machine: the artefacts
take short turns in one run, and the ratio is taken turn by turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.errors import RequestError

Inputs = Mapping[str, npt.NDArray[Any]]
Runner = Callable[[Any], Any]
Progress = Callable[[int, float], None]
"""Called with the number of runs so far and the share of the time that is used (0..1)."""

NOISY_RATIO = 1.5
"""p90/p50 above this marks a measurement as noisy: something else used the machine, or it throttled."""
DRIFT_RATIO = 1.15
"""Last quarter against first quarter of the runs: above this the device slowed down while it was measured."""
MAX_SAMPLES = 400


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LatencyMs(_Record):
    """Latency of one call in milliseconds."""

    p50: float
    p90: float
    p99: float
    mean: float | None = None


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
        default=None, description="of a fresh process that loads and runs it, see rss.py"
    )
    load_average: float = Field(description="1-minute load average when the measurement began")
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    noisy: bool = Field(description=f"p90/p50 > {NOISY_RATIO}")
    drift: float = Field(description="median of the last quarter of the runs over that of the first")
    samples_ms: list[float] = Field(default_factory=list, description=f"at most {MAX_SAMPLES}, evenly drawn in time")
    turns_ms: list[float] = Field(default_factory=list, description="median per turn of an interleaved measurement")

    @property
    def throttled(self) -> bool:
        """True where the device slowed down while it was measured."""
        return self.drift > DRIFT_RATIO


class Speedup(_Record):
    """How many times faster a candidate is than a reference: median over turns with a 95 % interval of it."""

    value: float
    low: float
    high: float
    turns: int


def latency_stats(samples_ms: Sequence[float]) -> LatencyMs:
    """Percentiles (linear interpolation) and mean of the samples, milliseconds."""
    values = np.asarray(samples_ms, dtype=np.float64)
    p50, p90, p99 = (float(v) for v in np.percentile(values, (50, 90, 99)))
    return LatencyMs(p50=p50, p90=p90, p99=p99, mean=float(values.mean()))


def cpu_mhz() -> float | None:
    """Mean current clock of the CPU (MHz), None where the system does not tell."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return float(frequency.current) if frequency and frequency.current else None


def temperature_c() -> float | None:
    """Hottest sensor of the machine (degrees Celsius), None where none can be read."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        sensors = read()
    except (OSError, RuntimeError):
        return None
    readings = [float(s.current) for group in sensors.values() for s in group if s.current]
    return max(readings) if readings else None


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
) -> Measurement:
    """Measures a session, or any callable that takes ``inputs``, for ``seconds`` but at least ``min_runs`` runs.

    ``labels`` gives ``device``, ``runtime``, ``runtime_version`` and ``precision`` of a bare callable; of a session
    they are read from it. Throughput comes from ``session.stream`` (async queue) where there is one.

    Raises:
        RequestError: ``seconds`` or ``min_runs`` is not positive.
    """
    _check_protocol(seconds, min_runs)
    load = os.getloadavg()[0]
    for _ in range(warmup):
        session(inputs)
    samples: list[float] = []
    start = time.perf_counter()
    while (used := time.perf_counter() - start) < seconds or len(samples) < min_runs:
        samples.append(_timed(session, inputs))
        if progress is not None:
            progress(len(samples), min(1.0, used / seconds))
    mean_s = sum(samples) / len(samples) / 1e3
    throughput, method = _throughput(session, inputs, mean_s, min(seconds / 2, 3.0))
    return _measurement(session, inputs, samples, load, throughput, method, warmup, threads, labels)


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
    ``turn_seconds`` but at least once. Turns go on, at least five of them, until every artefact has ``seconds`` of
    timed runs and ``min_runs`` of them, or the whole took twice ``seconds`` per artefact. ``inputs`` is one set for
    all, or one set per name.

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
    samples: dict[str, list[float]] = {name: [] for name in runners}
    turns: dict[str, list[float]] = {name: [] for name in runners}
    budget = seconds * len(runners)
    start = time.perf_counter()
    while not _enough(samples, turns, seconds, min_runs, time.perf_counter() - start > 2 * budget):
        for name, runner in runners.items():
            taken = _turn(runner, feeds[name], turn_seconds)
            samples[name].extend(taken)
            turns[name].append(float(np.median(taken)))
        if progress is not None:
            done = sum(min(seconds, sum(s) / 1e3) for s in samples.values())
            progress(sum(map(len, samples.values())), min(1.0, done / budget))
    result = {}
    for name, runner in runners.items():
        mean_s = sum(samples[name]) / len(samples[name]) / 1e3
        throughput, method = _throughput(runner, feeds[name], mean_s, min(seconds / 2, 2.0))
        own = (labels or {}).get(name)
        m = _measurement(runner, feeds[name], samples[name], load, throughput, method, warmup, threads, own)
        result[name] = m.model_copy(update={"turns_ms": turns[name]})
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


def _timed(runner: Runner, inputs: Inputs) -> float:
    start = time.perf_counter_ns()
    runner(inputs)
    return (time.perf_counter_ns() - start) / 1e6


def _turn(runner: Runner, inputs: Inputs, turn_seconds: float) -> list[float]:
    runner(inputs)
    samples = [_timed(runner, inputs)]
    while sum(samples) < turn_seconds * 1e3:
        samples.append(_timed(runner, inputs))
    return samples


def _enough(
    samples: Mapping[str, list[float]], turns: Mapping[str, list[float]], seconds: float, min_runs: int, late: bool
) -> bool:
    if any(len(t) < 5 for t in turns.values()):
        return False
    if late:
        return True
    return all(sum(s) / 1e3 >= seconds and len(s) >= min_runs for s in samples.values())


def _inputs_of(name: str, inputs: Inputs | Mapping[str, Inputs], runners: Mapping[str, Any]) -> Inputs:
    if set(runners) <= set(inputs) and isinstance(inputs[name], Mapping):
        return inputs[name]  # type: ignore[return-value]
    return inputs  # type: ignore[return-value]


def _throughput(
    session: Any, inputs: Inputs, mean_s: float, seconds: float
) -> tuple[float, Literal["stream", "1/mean"]]:
    stream = getattr(session, "stream", None)
    batch = _batch(inputs)
    if stream is None:
        return batch / mean_s, "1/mean"
    start = time.perf_counter()
    count = sum(1 for _ in stream(_repeat(inputs, start + max(seconds, 3 * mean_s))))
    return count * batch / (time.perf_counter() - start), "stream"


def _repeat(inputs: Inputs, deadline: float) -> Iterator[Inputs]:
    yield inputs
    while time.perf_counter() < deadline:
        yield inputs


def _batch(inputs: Inputs) -> int:
    shapes = [np.shape(v) for v in inputs.values()] if isinstance(inputs, Mapping) else []
    return int(shapes[0][0]) if shapes and shapes[0] else 1


def _measurement(
    session: Any,
    inputs: Inputs,
    samples: list[float],
    load: float,
    throughput: float,
    method: Literal["stream", "1/mean"],
    warmup: int,
    threads: int | None,
    labels: Mapping[str, str] | None,
) -> Measurement:
    stats = latency_stats(samples)
    quarter = max(1, len(samples) // 4)
    keep = np.linspace(0, len(samples) - 1, min(MAX_SAMPLES, len(samples))).round().astype(int)

    def label(key: str, default: str) -> str:
        return str((labels or {}).get(key) or getattr(session, key, None) or default)

    return Measurement(
        device=label("device", "cpu").lower(),
        runtime=label("runtime", "python"),
        runtime_version=label("runtime_version", "unknown"),
        precision=label("precision", "f32"),
        batch=_batch(inputs),
        threads=threads if threads is not None else getattr(session, "threads", None),
        warmup=warmup,
        n=len(samples),
        latency_ms=stats,
        throughput_per_s=throughput,
        throughput_method=method,
        load_average=load,
        cpu_mhz=cpu_mhz(),
        temperature_c=temperature_c(),
        noisy=stats.p90 > NOISY_RATIO * stats.p50,
        drift=float(np.median(samples[-quarter:]) / np.median(samples[:quarter])),
        samples_ms=[round(samples[i], 4) for i in keep],
    )
