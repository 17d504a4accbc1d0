"""Whether a model keeps a deadline for as long as it flies: many runs, one every so many milliseconds or back to back.

A benchmark of seconds says nothing of the slowest run in an hour, of heat, or of memory that grows. So this keeps every latency,
says percentiles up to p99.9 with bounds (and where there were too few runs for one), the worst run and when it came, periods that
were missed, memory at both ends, sensors and what other processes took. Latency is also stated as MLPerf's single-stream scenario
does (:func:`rsedge.devices.measure.order_statistics.early_stopping`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import headline_order
from rsedge.data.record import Record
from rsedge.devices.measure.load import Load, Ticks
from rsedge.devices.measure.order_statistics import bounded, early_stopping
from rsedge.devices.measure.protocol import Spread, Throttling
from rsedge.devices.measure.subject import opened_subject
from rsedge.devices.onboard import stats
from rsedge.devices.onboard.sensors import Sensors
from rsedge.runtimes.bundle.reading import Bundle

PERCENTILES = (0.5, 0.9, 0.99, 0.999)
SINGLE_STREAM = 0.9
"""The percentile of MLPerf's single-stream scenario."""
QUALITY = 0.99
"""Of the f32 model's figure: what MLPerf inference asks of a closed-division model."""
SLICES = 240
"""Of the time, in each of which a plot shows the median and the worst."""
MEMORY_EVERY_S = 1.0
WARMUP = 10


class Percentile(Record):
    """A percentile of latency (ms) and the 95 % bounds of the true one; None: too few runs to tell."""

    share: float = Field(gt=0, lt=1)
    ms: float
    low_ms: float | None
    high_ms: float | None
    needed: int = Field(description="runs from which on both bounds can be told")

    @property
    def name(self) -> str:
        """Such as ``p99.9``."""
        return f"p{100 * self.share:g}"


class SingleStream(Record):
    """The latency as MLPerf's single-stream scenario states it."""

    percentile: float = SINGLE_STREAM
    confidence: float = 0.99
    estimate_ms: float | None = Field(description="None: fewer runs than needed")
    discarded: int = Field(ge=0, description="largest latencies above it")
    needed: int


class Quality(Record):
    """A figure of the bundle beside that of its f32 sibling, both on the recipe's test set."""

    metric: str
    value: float
    f32: float
    f32_bundle: str

    @property
    def share(self) -> float:
        """Of the f32 model's figure."""
        return self.value / self.f32

    @property
    def kept(self) -> bool:
        """Whether it is what MLPerf asks for."""
        return self.share >= QUALITY


class Memory(Record):
    """Resident memory (bytes) of this process: before the model was loaded, at the first and at the last run, the most between."""

    before_loading: int
    start: int
    end: int
    most: int

    @property
    def growth(self) -> int:
        return self.end - self.start


class Slice(Record):
    """Runs that began in one part of the time: since when (s), how many, their median and their worst (ms)."""

    at_s: float
    n: int
    p50_ms: float
    worst_ms: float


class Soak(Record):
    """What became of it; latencies in milliseconds, memory in bytes."""

    provenance: Literal["measured"] = "measured"
    bundle: str
    bundle_sha256: str = Field(description="of the manifest: which bundle this is of")
    target: str
    of: str = Field(description="what one run takes: a tile or a sample")
    device: str
    runtime: str
    runtime_version: str
    precision: str
    threads: int
    period_ms: float | None = Field(description="a run was due every so many milliseconds; None: back to back")
    asked_s: float
    seconds: float = Field(description="how long it took")
    ended_early: bool
    warmup: int
    n: int = Field(ge=1, description="timed runs")
    percentiles: tuple[Percentile, ...]
    mean_ms: float
    worst_ms: float
    worst_at_s: float = Field(description="since the start")
    late: int = Field(description="runs that ended after the next one was due")
    skipped: int = Field(description="periods that had gone by before their run could begin")
    busy: float = Field(description="share of the time in which a run was under way")
    single_stream: SingleStream
    quality: Quality | None = None
    memory: Memory
    same_outputs: bool | None = Field(description="whether the last run gave the numbers of the first, bit for bit")
    clocks_mhz: dict[str, Spread]
    temperatures_c: dict[str, Spread]
    power_w: dict[str, Spread]
    throttling: Throttling
    load: Load
    slices: tuple[Slice, ...]

    @property
    def missed(self) -> int:
        """Periods without an answer in time."""
        return self.late + self.skipped

    @property
    def periods(self) -> int:
        return self.n + self.skipped

    @property
    def per_thread(self) -> int:
        """What the loaded model took of memory, over the threads it runs with (bytes)."""
        return max(0, self.memory.start - self.memory.before_loading) // max(1, self.threads)


@dataclass
class Runs:
    """All runs: when each began (s since the start) and how long it took (ms)."""

    began_s: array[float] = field(default_factory=lambda: array("d"))
    took_ms: array[float] = field(default_factory=lambda: array("d"))
    late: int = 0
    skipped: int = 0
    seconds: float = 0.0
    ended_early: bool = False

    @property
    def bytes(self) -> int:
        """What keeping them takes: memory of the soak's own, which grows with it."""
        return sum(sys.getsizeof(kept) for kept in (self.began_s, self.took_ms))


def paced(
    run: Callable[[], Any],
    seconds: float,
    period_s: float | None = None,
    *,
    between: Callable[[float], None] = lambda _: None,
    ended: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    into: Runs | None = None,
) -> Runs:
    """Runs for so long, each when it is due or as soon as the one before has ended.

    A run that ends after the next one was due is late; a period that has gone by altogether before its run could begin is skipped,
    as a camera's frame would be lost.

    Args:
        period_s: None: back to back.
        between: called with the seconds since the start after every run.
        ended: says that it shall end now.
        into: takes the runs as they come, for whoever looks meanwhile.
    """
    found, start, turn = Runs() if into is None else into, clock(), 0
    while (now := clock() - start) < seconds:
        if ended():
            found.ended_early = True
            break
        if period_s is not None:
            gone = max(turn, int(now / period_s))
            found.skipped, turn = found.skipped + gone - turn, gone
            if now < turn * period_s:
                sleep(turn * period_s - now)
            if (now := clock() - start) >= seconds:
                break
        run()
        done = clock() - start
        found.began_s.append(now)
        found.took_ms.append((done - now) * 1e3)
        if period_s is not None:
            turn += 1
            found.late += done > turn * period_s
        between(done)
    found.seconds = clock() - start
    return found


def check_soak(seconds: float, period_ms: float | None) -> None:
    """
    Raises:
        RequestError: numbers that no soak can have.
    """
    if not seconds > 0 or (period_ms is not None and not 0 < period_ms < seconds * 1e3):
        raise RequestError(
            f"a soak needs seconds > 0 and a period shorter than that, got {seconds:g} s and {period_ms} ms"
        )


def soak(
    bundle: Bundle,
    threads: int,
    seconds: float,
    period_ms: float | None = None,
    f32: Bundle | None = None,
    ended: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] | None = None,
) -> Soak:
    """Loads a bundle, warms up, runs its first golden tile for ``seconds`` and sums up.

    Args:
        period_ms: a run is due every so many milliseconds; None: back to back.
        f32: the same recipe's bundle in f32, beside whose figure the bundle's is stated.
        ended: as of :func:`paced`.
        progress: called with the share of the time that has gone.

    Raises:
        RequestError: numbers that no soak can have, or it was ended before a run was done.
        MissingCapability, IntegrityError: as :func:`rsedge.devices.measure.subject.opened_subject`.
    """
    check_soak(seconds, period_ms)
    before = resident_bytes()
    with opened_subject(bundle, threads) as subject, contextlib.closing(Sensors()) as sensors:
        found = _soaked(lambda: subject.run(subject.inputs), seconds, period_ms, before, sensors, ended, progress)
        named = {name: subject.label(name) for name in ("device", "runtime", "runtime_version", "precision")}
        asked = {"threads": threads, "period_ms": period_ms, "asked_s": seconds, "warmup": WARMUP}
        return Soak.model_validate({
            "bundle": str(bundle.path), "bundle_sha256": bundle.manifest_sha256, "target": bundle.target.name,
            "of": subject.of, "quality": None if f32 is None else quality(bundle, f32), **named, **asked, **found,
        })  # fmt: skip


def quality(bundle: Bundle, f32: Bundle) -> Quality | None:
    """The first figure by which a report compares that both bundles have; None where there is none of the same recipe."""
    ours, theirs = bundle.manifest, f32.manifest
    if ours.recipe_sha256 is None or ours.recipe_sha256 != theirs.recipe_sha256 or theirs.target.quantized:
        return None
    for name in headline_order():
        value, reference = ours.metrics.get(name), theirs.metrics.get(name)
        if isinstance(value, int | float) and isinstance(reference, int | float) and reference > 0:
            return Quality(metric=name, value=value, f32=reference, f32_bundle=str(f32.path))
    return None


def f32_beside(bundle: Bundle) -> Path | None:
    """Where the same run keeps the f32 bundle of the same runtime and device, beside this one; None: nowhere."""
    target = bundle.target
    place = (
        bundle.path.parent
        / f"{target.runtime}-{target.device}-f32{bundle.path.suffix if bundle.path.is_file() else ''}"
    )
    return place if target.precision != "f32" and place.exists() else None


def _soaked(
    run: Callable[[], Any],
    seconds: float,
    period_ms: float | None,
    before_loading: int,
    sensors: Sensors,
    ended: Callable[[], bool],
    progress: Callable[[float], None] | None,
) -> dict[str, Any]:
    """What is measured, by the field names of :class:`Soak`."""
    latest = [first := run()]
    for _ in range(WARMUP - 1):
        run()
    runs = Runs()
    memory = _Resident(runs)

    def once() -> None:
        latest[0] = run()

    def between(at_s: float) -> None:
        sensors.tick()
        memory.tick(at_s)
        if progress is not None:
            progress(min(1.0, at_s / seconds))

    before = Ticks.now()
    sensors.restart()
    period_s = None if period_ms is None else period_ms / 1e3
    paced(once, seconds, period_s, between=between, ended=ended, into=runs)
    resident = memory.record(before_loading)  # before summing up, which takes memory of its own
    load = Ticks.now().since(before)
    sensors.sample()
    if not runs.took_ms:
        raise RequestError("the soak was ended before a run was done; let it run longer")
    return {
        **_latencies(runs), **sensors.report(), "throttling": _throttling(sensors, runs.took_ms), "load": load,
        "seconds": runs.seconds, "ended_early": runs.ended_early, "memory": resident,
        "same_outputs": _same(first, latest[0]),
    }  # fmt: skip


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


class _Resident:
    """Resident memory over the time, without what the soak keeps of its runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self._last = runs, 0.0
        self._start = self._most = self._now()

    def _now(self) -> int:
        return resident_bytes() - self._runs.bytes

    def tick(self, at_s: float) -> None:
        if at_s - self._last >= MEMORY_EVERY_S:
            self._last, self._most = at_s, max(self._most, self._now())

    def record(self, before_loading: int) -> Memory:
        end = self._now()
        return Memory(before_loading=before_loading, start=self._start, end=end, most=max(self._most, end))


def _latencies(runs: Runs) -> dict[str, Any]:
    took, began = np.asarray(runs.took_ms), np.asarray(runs.began_s)
    ordered, worst = np.sort(took).tolist(), int(np.argmax(took))
    percentiles = []
    for share in PERCENTILES:
        one = bounded(ordered, share)
        percentiles.append(Percentile(share=share, ms=one.value, low_ms=one.low, high_ms=one.high, needed=one.needed))
    early = early_stopping(ordered, SINGLE_STREAM)
    return {
        "n": len(took), "percentiles": tuple(percentiles), "mean_ms": float(took.mean()),
        "worst_ms": float(took[worst]), "worst_at_s": float(began[worst]), "late": runs.late, "skipped": runs.skipped,
        "busy": float(min(1.0, took.sum() / 1e3 / runs.seconds)),
        "single_stream": SingleStream(estimate_ms=early.value, discarded=early.discarded, needed=early.needed),
        "slices": tuple(slices(began, took)),
    }  # fmt: skip


def slices(began_s: npt.NDArray[np.float64], took_ms: npt.NDArray[np.float64], most: int = SLICES) -> list[Slice]:
    """Equal parts of the time, at most so many, without those in which no run began."""
    end = float(began_s[-1]) * (1 + 1e-9) + 1e-9
    count = max(1, min(most, len(took_ms) // 2))
    place = np.minimum((began_s / end * count).astype(int), count - 1)
    found = []
    for number in np.unique(place):
        part = took_ms[place == number]
        found.append(
            Slice(
                at_s=float(number * end / count), n=len(part), p50_ms=float(np.median(part)), worst_ms=float(part.max())
            )
        )
    return found


def _throttling(sensors: Sensors, took_ms: Sequence[float]) -> Throttling:
    first, last = stats.quarters(took_ms)
    reasons = sensors.throttle_reasons()
    if last > stats.DRIFT_RATIO * first:
        reasons.insert(0, f"latency rose from {first:.3g} to {last:.3g} ms (medians of the first and last quarter)")
    counts = sensors.throttle_counts()
    return Throttling(detected=bool(reasons), reasons=reasons, counts=counts, first_ms=first, last_ms=last)


def _same(first: Any, last: Any) -> bool | None:
    """Bit for bit, of arrays by name; None where it cannot be told."""
    if not isinstance(first, dict) or not isinstance(last, dict):
        return None
    return first.keys() == last.keys() and all(np.array_equal(first[k], last[k], equal_nan=True) for k in first)
