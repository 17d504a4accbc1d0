"""Building TensorRT engines: for real on the device, and as a compile check on a machine without a GPU.

Where the version can, networks are strongly typed: the ONNX file's own types and its explicit quantize/dequantize pairs decide
what runs in fp16 or int8, so that the engine computes what was verified before it left.
"""

from __future__ import annotations

import dataclasses
import datetime
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file
from rsedge.runtimes.backend import BundleView, GoldenView
from rsedge.runtimes.device_cache import Built, Kind, Slot, drop, load, store
from rsedge.runtimes.file_checks import CompileCheck
from rsedge.runtimes.tensorrt.apart import compile_apart
from rsedge.runtimes.tensorrt.compile import BuildOptions, Compiled, build_options, compile_onnx
from rsedge.runtimes.tensorrt.cuda_driver import Cuda
from rsedge.runtimes.tensorrt.dla import dla_record
from rsedge.runtimes.tensorrt.module import load_tensorrt
from rsedge.runtimes.tensorrt.record import EngineRecord, Machine
from rsedge.runtimes.tensorrt.timing import read_timing, write_timing

COMPILE_SM = "SM86"


@dataclasses.dataclass(frozen=True)
class Build:
    """One of several builds of the same bundle: time to build, and its golden vector on this GPU."""

    seconds: float
    engine_sha256: str
    golden: GoldenView


def build_engine(
    bundle: BundleView,
    dla: int | None = None,
    version_compatible: bool = False,
    rebuild: bool = False,
) -> Path:
    """Builds the bundle's engine for this machine's GPU; it is kept in the device's cache, whose file is returned. A process of
    its own does so, by whomever the bundle is signed.

    Kernel times are kept there too, so that the next build chooses the same kernels.

    Args:
        dla: DLA core to prefer, None: what the bundle was made for; the record lists where each layer runs.
        version_compatible: newer TensorRT of the same major version may load the engine.
        rebuild: drop the kernel times and measure anew.

    Raises:
        RequestError: a model that TensorRT refuses, or that ends the process that builds.
        MissingCapability: no TensorRT, no driver, no GPU, no such DLA core, kernel times measured by another TensorRT.
    """
    trt = load_tensorrt()
    options = options_for(bundle, trt, dla, version_compatible)
    with Cuda() as gpu:  # let go of before the child takes it
        machine, driver = machine_of(trt, gpu), gpu.driver_version
    times = _slot(bundle, "timing", machine)
    if rebuild:
        drop(times)
    timing = None if trt.__name__ == "tensorrt_rtx" else read_timing(times, machine)
    began = time.perf_counter()
    compiled = compile_apart(bundle.model(), options, trt.__name__, timing=timing)
    seconds = time.perf_counter() - began
    if timing is not None:
        write_timing(times, compiled.timing, machine)
    return write_engine(bundle, compiled, options, machine, driver, seconds)


def build_times(
    bundle: BundleView, times: int, dla: int | None = None, version_compatible: bool = False
) -> tuple[Path, list[Build]]:
    """Builds ``times`` engines, each with kernels measured anew, runs the golden vector on each and keeps the best; returns
    its file and how all did.

    Builds differ: which kernel is fastest is measured, and kernels round differently (NVIDIA's TensorRT guide on
    determinism). The kernel times that stay belong to the engine that stays.
    """
    if times < 1:
        raise RequestError(f"--times must be at least 1, not {times}")
    builds: list[Build] = []
    kept: list[tuple[Slot, Built]] = []
    for _ in range(times):
        began = time.perf_counter()
        engine = build_engine(bundle, dla, version_compatible, rebuild=True)
        seconds = time.perf_counter() - began
        builds.append(Build(seconds, sha256_file(engine), bundle.verify()))
        if best_of(builds) == len(builds) - 1:
            kept = _built(bundle)
    paths = {slot.kind: store(slot, built.content, built.about) for slot, built in kept}
    return paths["engine"], builds


def _built(bundle: BundleView) -> list[tuple[Slot, Built]]:
    """What lies in the cache of the bundle, for this machine."""
    with Cuda() as gpu:
        machine = machine_of(load_tensorrt(), gpu)
    slots = (_slot(bundle, "timing", machine), _slot(bundle, "engine", machine))
    return [(slot, built) for slot in slots if (built := load(slot)) is not None]


def best_of(builds: Sequence[Build]) -> int:
    """Index of the build whose classes agree most with the golden vector, then whose logits are closest."""
    return max(range(len(builds)), key=lambda i: (builds[i].golden.agreement, -builds[i].golden.max_abs_difference, -i))


def spread(builds: Sequence[Build]) -> dict[str, Any]:
    """How several builds differ: least and largest agreement and logit difference, distinct engines, build time."""
    agreement = [b.golden.agreement for b in builds]
    difference = [b.golden.max_abs_difference for b in builds]
    return {
        "builds": len(builds),
        "distinct_engines": len({b.engine_sha256 for b in builds}),
        "agreement": [min(agreement), max(agreement)],
        "max_abs_difference": [min(difference), max(difference)],
        "passed": sum(b.golden.passed for b in builds),
        "build_seconds": round(statistics.median(b.seconds for b in builds), 2),
        "kept": best_of(builds),
    }


def options_for(bundle: BundleView, trt: Any, dla: int | None, version_compatible: bool) -> BuildOptions:
    """What the bundle was exported for, held against the TensorRT that is here.

    Raises:
        MissingCapability: exported for builder flags, but this TensorRT has none, or the other way round.
    """
    made, precision = dict(bundle.build or {}), bundle.target.precision
    wanted = build_options(trt, str(bundle.path), made, precision)
    core = wanted.dla if dla is None else dla
    return dataclasses.replace(wanted, dla=core, version_compatible=version_compatible)


def machine_of(trt: Any, gpu: Cuda) -> Machine:
    """What an engine and kernel times belong to."""
    return Machine(module=trt.__name__, version=trt.__version__, gpu=gpu.name, sm=gpu.sm)


def write_engine(
    bundle: BundleView, compiled: Compiled, options: BuildOptions, machine: Machine, driver: int, seconds: float
) -> Path:
    """Keeps an engine and its record in the device's cache."""
    record = EngineRecord(
        **machine.model_dump(),
        driver=driver,
        version_compatible=options.version_compatible,
        max_batch=options.max_batch,
        dla=None if options.dla is None else dla_record(options.dla, compiled.placement),
        seconds=round(seconds, 2),
        built=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    return store(_slot(bundle, "engine", machine), compiled.engine, record.model_dump())


def _slot(bundle: BundleView, kind: Kind, machine: Machine) -> Slot:
    return Slot(kind, bundle.manifest_sha256, machine.hardware, bundle.path)


def compile_gate(onnx_path: str | Path, sm: str = COMPILE_SM, max_batch: int = 1) -> CompileCheck:
    """Compiles an ONNX file with ``tensorrt_rtx`` for a GPU that need not be here; nothing is run.

    TensorRT for RTX knows no Jetson: SM86 stands in for Orin's SM87, the same generation with other sizes.

    Raises:
        RequestError: no such file, or ``sm`` is no GPU generation that the installed module compiles for.
        MissingCapability: ``tensorrt_rtx`` is not installed.
    """
    path = Path(onnx_path)
    if not path.is_file():
        raise RequestError(f"{path}: no such ONNX file")
    trt = load_tensorrt("tensorrt_rtx")
    capability = trt.ComputeCapability.__members__.get(sm)
    if capability is None or sm in ("NONE", "CURRENT"):
        known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
        raise RequestError(f"'{sm}' is no GPU generation that tensorrt_rtx compiles for; choose {', '.join(known)}")
    began, size, message = time.perf_counter(), None, f"compiles for {sm}"
    try:
        size = len(compile_onnx(trt, path, BuildOptions(max_batch=max_batch), capability).engine)
    except RequestError as error:
        message = str(error)
    seconds = round(time.perf_counter() - began, 2)
    return CompileCheck(
        ok=size is not None, message=message, seconds=seconds, engine_bytes=size, sm=sm, module=trt.__name__,
        version=trt.__version__,
    )  # fmt: skip
