"""Per-layer times of a bundle's model on this machine, from the runtime's own profiler."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability
from rsedge.devices.onboard.engines import open_engine
from rsedge.devices.onboard.job import LAYER_RUNS
from rsedge.runtimes.bundle import Bundle, runtime_device
from rsedge.runtimes.manifest import Runtime
from rsedge.runtimes.session import INPUT


def profile_layers(bundle: Bundle, threads: int | None = None, runs: int = LAYER_RUNS) -> list[dict[str, Any]]:
    """Mean milliseconds per layer over ``runs`` runs of the first golden tile, in the order of execution.

    Rows hold ``name``, ``type``, ``kernel`` and ``ms``. Layers that the runtime fused into others are in those. Profiling
    slows a model down, so the sum is above the latency.

    Raises:
        MissingCapability: a TensorRT bundle whose engine was not built here.
    """
    target = bundle.manifest.target
    if not bundle.model_path.is_file():
        raise MissingCapability(
            f"{bundle.path}: its layers are profiled in the engine, which is built on the device: rsedge build {bundle.path}, "
            f"or from here: rsedge bench {bundle.path} --layers --on ssh://user@host"
        )
    device = runtime_device(target.runtime, target.device)
    tile = bundle.golden()[INPUT][:1]
    path = bundle.folder / bundle.manifest.model_file
    return profile_model(
        path, target.runtime, tile, device=device, precision=target.precision, threads=threads, runs=runs
    )


def profile_model(
    path: Path,
    runtime: Runtime,
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
