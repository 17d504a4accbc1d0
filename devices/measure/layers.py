"""Per-layer times of a bundle's model on this machine, from the runtime's own profiler."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability
from rsedge.devices.onboard.engines import open_engine
from rsedge.devices.onboard.job import LAYER_RUNS
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.checked import Model
from rsedge.runtimes.registry import RuntimeName
from rsedge.runtimes.session import INPUT
from rsedge.runtimes.tensorrt.session import TensorRtSession


def profile_layers(bundle: Bundle, threads: int | None = None, runs: int = LAYER_RUNS) -> list[dict[str, Any]]:
    """Mean milliseconds per layer over ``runs`` runs of the first golden tile, in the order of execution.

    Rows hold ``name``, ``type``, ``kernel`` and ``ms``. Layers that the runtime fused into others are in those. Profiling
    slows a model down, so the sum is above the latency.

    Raises:
        MissingCapability: a TensorRT bundle whose engine was not built here, or a runtime that does not tell.
    """
    target = bundle.manifest.target
    if not bundle.backend.tells_layers:
        raise MissingCapability(f"{bundle.path}: {target.runtime} tells no times of layers; leave --layers out")
    device = bundle.backend.device(target.device)
    tile = bundle.golden()[INPUT][:1]
    if bundle.backend.built_on_device:
        return _engine_layers(bundle, tile, runs)
    bundle.rehearse(threads)
    return profile_model(
        bundle.model(), target.runtime, tile, device=device, precision=target.precision, threads=threads, runs=runs
    )


def _engine_layers(bundle: Bundle, tile: Any, runs: int) -> list[dict[str, Any]]:
    """The engine that was built here is the one that is profiled."""
    with contextlib.closing(bundle.session()) as session:
        assert isinstance(session, TensorRtSession)
        return session.layers({INPUT: tile}, runs)


def profile_model(
    path: Model,
    runtime: RuntimeName,
    tile: Any,
    *,
    device: str = "CPU",
    precision: str,
    threads: int | None = None,
    runs: int = LAYER_RUNS,
) -> list[dict[str, Any]]:
    """As :func:`profile_layers`, for a model file; ``tile`` is an input [1, C, T, T] of digital numbers."""
    with contextlib.closing(open_engine(path, runtime, device, precision, threads, profile=True)) as engine:
        return engine.layers(np.ascontiguousarray(tile, dtype=engine.dtype()), runs)
