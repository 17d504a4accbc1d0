"""Calibration: measure the small suite on a device, refit its figures, keep them in a file of the user's.

Where the suite runs is a parameter: :class:`Measure` takes ONNX files and gives latencies. :func:`measure_here` runs them
with OpenVINO on this machine, :class:`rsedge.devices.remote.suite.RemoteSuite` on a device over SSH.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.devices.onboard.suite import time_files
from rsedge.devices.predict.efficiency import (
    Architecture,
    Efficiencies,
    Evidence,
    Spread,
    architecture_of,
    shipped_efficiencies,
)
from rsedge.devices.predict.fit import Observed, fit
from rsedge.devices.predict.onnx_graph import GraphCost, graph_cost
from rsedge.devices.predict.roofline import stack, total_ms, work_of
from rsedge.devices.predict.suite import BLOCKS, write_suite
from rsedge.devices.profiles.cpu import detect_cpu
from rsedge.devices.profiles.profile import DeviceProfile, Sourced
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName, backend

FOLDS = 5
LEAST_SPREAD = 1.15
Progress = Callable[[str, int, int], None]
"""Called with what is measured, how many are done and how many there are."""


class Measure(Protocol):
    """Runs ONNX files with float32 inputs of fixed shapes; gives milliseconds per call by name."""

    def __call__(
        self, files: Mapping[str, Path], precision: PrecisionName, threads: int, progress: Progress | None = None
    ) -> dict[str, float]: ...


HERE: RuntimeName = "openvino"
"""The runtime that is calibrated on the machine itself; others are on devices, over SSH."""


def measure_here(
    files: Mapping[str, Path], precision: PrecisionName, threads: int, progress: Progress | None = None
) -> dict[str, float]:
    """Latency (ms) of each file with :data:`HERE` on this CPU, as :func:`rsedge.devices.onboard.suite.time_files` takes it.

    Raises:
        MissingCapability: OpenVINO is not installed, or the CPU has no such precision.
    """
    return time_files(files, HERE, "CPU", precision, threads, shares(precision, progress))[0]


def shares(precision: PrecisionName, progress: Progress | None) -> Callable[[str, float], None]:
    """``progress`` as a function of the step and its share (0..1)."""

    def notice(step: str, share: float) -> None:
        if progress is not None:
            progress(f"{precision}, {step}", round(100 * share), 100)

    return notice


class Place(NamedTuple):
    """Where a suite was measured, in words, and the load average there before."""

    name: str
    load_average: float


@dataclass(frozen=True)
class Calibrated:
    """A calibration: the figures to keep, and log(predicted / measured) of the suite, each network left out in its turn."""

    efficiencies: Efficiencies
    residuals: dict[str, float]
    load_average: float


def calibrate(
    profile: DeviceProfile,
    runtime: RuntimeName,
    precisions: Sequence[PrecisionName],
    folder: Path,
    *,
    threads: int,
    measure: Measure = measure_here,
    place: Place | None = None,
    version: str = "",
    networks: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Measures the suite in each precision and refits the figures of ``profile`` for ``runtime``.

    ``folder`` takes the suite's files; ``networks`` are the names to use, by default all. The shipped figures are the
    prior. ``measure`` must run on the device that ``profile`` describes, which ``place`` names (None: this machine) and whose
    runtime has ``version`` (it decides how TensorRT's graphs are typed).

    Raises:
        RequestError: the device does not run a precision.
        MissingCapability: a module for measuring or fitting is not installed.
    """
    where = place or Place(detect_cpu().model, os.getloadavg()[0])
    names: list[tuple[str, PrecisionName]] = []
    graphs: list[GraphCost] = []
    observed: list[Observed] = []
    for precision in precisions:
        if precision not in profile.runtimes.get(runtime, []):
            raise RequestError(f"device '{profile.name}' does not run {precision} on {runtime}")
        files = write_suite(folder / precision, backend(runtime).style(precision, version), networks)
        for name, latency in measure(files, precision, threads, progress).items():
            graph = graph_cost(files[name])
            names.append((name, precision))
            graphs.append(graph)
            observed.append(Observed(work_of(graph, profile, precision), latency))
    return _fitted(profile, runtime, names, graphs, observed, where, threads)


def _fitted(
    profile: DeviceProfile,
    runtime: RuntimeName,
    names: list[tuple[str, PrecisionName]],
    graphs: list[GraphCost],
    observed: list[Observed],
    place: Place,
    threads: int,
) -> Calibrated:
    shipped = shipped_efficiencies()[profile.priors[runtime]]
    prior = shipped.values()
    figures = fit(observed, prior)
    fold = [i % FOLDS for i in range(len(observed))]
    by_network = left_out(observed, fold, prior, figures)
    groups = [name.partition("-")[0] for name, _ in names]
    by_group = left_out(observed, groups, prior, figures)
    basis = f"calibration: {len(observed)} networks of the suite"
    # Errors of single kernels partly cancel in a network, so the interval comes from the blocks, where there are any.
    mixed = np.array([group in BLOCKS for group in groups])
    wide = mixed if mixed.any() else np.ones(len(groups), dtype=bool)
    found = Efficiencies(
        figures={key: Sourced(value=value, source=basis) for key, value in figures.items()},
        spread=_spread(by_network[wide], by_group[wide], basis),
        evidence=_evidence(profile, names, graphs),
        runtime_mb=shipped.runtime_mb,
        calibrated_on=f"{place.name}, {threads} threads, load average {place.load_average:.1f}",
    )
    return Calibrated(
        found, {f"{n}.{p}": float(r) for (n, p), r in zip(names, by_network, strict=True)}, place.load_average
    )


def left_out(
    observed: Sequence[Observed], groups: Sequence[Any], prior: Mapping[str, float], start: Mapping[str, float]
) -> npt.NDArray[np.float64]:
    """log(predicted / measured) of every row, from a fit that saw no row of its group."""
    found = np.zeros(len(observed))
    for group in sorted(set(groups)):
        held = [i for i, g in enumerate(groups) if g == group]
        rest = [row for row, g in zip(observed, groups, strict=True) if g != group]
        figures = fit(rest, prior, start) if rest else dict(prior)
        rows = [observed[i] for i in held]
        predicted = total_ms(stack([r.work for r in rows]), figures, np.array([r.with_call for r in rows]))
        found[held] = np.log(predicted / np.array([r.latency_ms for r in rows]))
    return found


def _spread(by_network: npt.NDArray[np.float64], by_group: npt.NDArray[np.float64], basis: str) -> Spread:
    known = max(LEAST_SPREAD, width(by_network))
    other = max(LEAST_SPREAD * known, width(by_group))
    return Spread(
        known=Sourced(value=known, source=f"{basis}, 90 % of the blocks, each left out"),
        new_architecture=Sourced(value=other, source=f"{basis}, 90 % of the blocks, each group left out"),
        new_device=Sourced(value=2.0, source="judged: calibrated on another device"),
    )


def width(residuals: npt.NDArray[np.float64], aim: float = 0.9) -> float:
    """Factor that holds ``aim`` of the absolute log residuals, corrected for their number (split conformal)."""
    n = residuals.size
    return math.exp(float(np.quantile(np.abs(residuals), min(1.0, math.ceil((n + 1) * aim) / n))))


def _evidence(
    profile: DeviceProfile, names: list[tuple[str, PrecisionName]], graphs: list[GraphCost]
) -> list[Evidence]:
    groups: dict[tuple[PrecisionName, Architecture], list[float]] = {}
    for (_, precision), graph in zip(names, graphs, strict=True):
        groups.setdefault((precision, architecture_of(graph)), []).append(graph.macs / 1e9)
    return [
        Evidence(device=profile.name, precision=p, architecture=a, rows=len(g), gmacs=(min(g), max(g)))
        for (p, a), g in groups.items()
    ]
