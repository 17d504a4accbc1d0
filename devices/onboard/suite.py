"""Latencies of the calibration suite: ONNX files of fixed shapes, timed in turns with one of this device's runtimes.

Each file runs ``runs`` times in each of ``rounds`` rounds over all files, and its fastest run counts: what slows a run down
from outside only ever adds to it. On the CPU with one thread it is the processor time of the run, which other work
does not add to; on a free core that is the latency.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.devices.onboard.tegrastats import power_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Notice = Callable[[str, float], None]

ROUNDS, RUNS = 5, 5


def run(folder: Path, job: dict[str, Any], notice: Notice) -> dict[str, Any]:
    """Times the ONNX files of ``folder`` that ``job["suite"]`` names.

    Args:
        job: ``suite`` (names without .onnx), ``runtime``, ``device`` (the runtime's name of it), ``precision``, ``threads``
            (None: all), ``rounds``, ``runs``.

    Returns:
        ``latencies_ms`` by name, ``runtime_version``, ``load_average`` before, ``power_mode``.
    """
    load = os.getloadavg()[0]
    files = {name: folder / f"{name}.onnx" for name in job["suite"]}
    found, version = time_files(
        files,
        job["runtime"],
        job["device"],
        job["precision"],
        job["threads"],
        notice,
        job["rounds"],
        job["runs"],
    )
    return {"latencies_ms": found, "runtime_version": version, "load_average": load, "power_mode": power_mode()}


def time_files(
    files: Mapping[str, Path],
    runtime: str,
    device: str,
    precision: str,
    threads: int | None,
    notice: Notice = lambda _, __: None,
    rounds: int = ROUNDS,
    runs: int = RUNS,
) -> tuple[dict[str, float], str]:
    """Milliseconds of each file's fastest run, and the runtime's version.

    Raises:
        RequestError: the runtime refuses a file.
        MissingCapability: runtime, device or precision is not there.
    """
    opener = _opener(runtime, device, precision, threads)
    try:
        calls: dict[str, Callable[[], Any]] = {}
        for i, (name, path) in enumerate(files.items()):
            calls[name] = opener.open_file(path)
            notice("opening the suite", (i + 1) / len(files))
        clock = time.process_time if threads == 1 and device == "CPU" else time.perf_counter
        best = dict.fromkeys(files, math.inf)
        for turn in range(rounds):
            for i, (name, call) in enumerate(calls.items()):
                call()
                for _ in range(runs):
                    start = clock()
                    call()
                    best[name] = min(best[name], 1e3 * (clock() - start))
                notice("measuring the suite", (turn + (i + 1) / len(calls)) / rounds)
        return best, opener.version
    finally:
        opener.close()


class _Opener:
    """What makes a call without arguments of a file, what frees all of them, and the runtime's version."""

    def __init__(
        self, open_file: Callable[[Path], Callable[[], Any]], module: Any, close: Callable[[], None] = lambda: None
    ) -> None:
        self.open_file, self.close, self.version = open_file, close, str(module.__version__)


def _opener(runtime: str, device: str, precision: str, threads: int | None) -> _Opener:
    openers: dict[str, Callable[[], _Opener]] = {
        "openvino": lambda: _openvino(device, precision, threads),
        "onnxruntime": lambda: _onnxruntime(device, threads),
        "tensorrt": lambda: _tensorrt(precision),
    }
    if runtime not in openers:
        raise RequestError(f"the suite's ONNX files do not run with {runtime}; name one of {', '.join(openers)}")
    return openers[runtime]()


def _openvino(device: str, precision: str, threads: int | None) -> _Opener:
    ov: Any = _module("openvino")
    from rsedge.runtimes.openvino import core as core_of

    core = core_of.shared_core()

    def open_file(path: Path) -> Callable[[], Any]:
        core_of.check_device(core, path, device, precision)
        options = core_of.settings(device, precision, threads)
        compiled = core_of.compile_model(core, core_of.read_model(core, path), path, device, options)
        request = compiled.create_infer_request()
        for port in request.model_inputs:
            request.set_tensor(port, ov.Tensor(_noise(port.shape)))
        return request.infer

    return _Opener(open_file, ov)


def _onnxruntime(device: str, threads: int | None) -> _Opener:
    ort: Any = _module("onnxruntime")
    from rsedge.runtimes.onnxruntime.core import open_onnx

    def open_file(path: Path) -> Callable[[], Any]:
        session = open_onnx(ort, path, device, threads)
        feeds = {entry.name: _noise(entry.shape) for entry in session.get_inputs()}
        return lambda: session.run(None, feeds)

    return _Opener(open_file, ort)


def _tensorrt(precision: str) -> _Opener:
    from rsedge.runtimes.tensorrt.compile import BuildOptions, compile_onnx
    from rsedge.runtimes.tensorrt.cuda_driver import Cuda
    from rsedge.runtimes.tensorrt.engine import EngineRunner
    from rsedge.runtimes.tensorrt.module import load_tensorrt

    trt, cuda = load_tensorrt(), Cuda()
    opened: list[Any] = []

    def open_file(path: Path) -> Callable[[], Any]:
        engine = compile_onnx(trt, path, BuildOptions(precision)).engine
        runner = EngineRunner(trt, cuda, engine, str(path), "build it on this device")
        opened.append(runner)
        feeds = {name: _noise(runner.host[name].shape) for name in runner.inputs}
        return lambda: runner.run(feeds)

    def close() -> None:
        for runner in opened:
            runner.close()
        cuda.close()

    return _Opener(open_file, trt, close)


def _noise(shape: Any) -> Any:
    import numpy as np

    return np.random.default_rng(0).normal(0, 1, tuple(shape)).astype(np.float32)


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingCapability(
            f"Python cannot import '{name}' ({error}); install it there: python3 -m pip install {name}"
        ) from error
