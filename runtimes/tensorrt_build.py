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
from rsedge.data.files import sha256_file, write_bytes, write_json
from rsedge.runtimes.bundle import Bundle, GoldenResult
from rsedge.runtimes.cuda_driver import Cuda
from rsedge.runtimes.manifest import ENGINE, ENGINE_RECORD, built_later
from rsedge.runtimes.tensorrt_compile import BuildOptions, Compiled, build_options, compile_onnx
from rsedge.runtimes.tensorrt_dla import dla_record
from rsedge.runtimes.tensorrt_module import load_tensorrt, version_pair
from rsedge.runtimes.tensorrt_timing import drop_timing, read_timing, write_timing

COMPILE_SM = "SM86"


@dataclasses.dataclass(frozen=True)
class Build:
    """One of several builds of the same bundle: time to build, and its golden vector on this GPU."""

    seconds: float
    engine_sha256: str
    golden: GoldenResult


def build_engine(
    bundle: Bundle,
    dla: int | None = None,
    version_compatible: bool = False,
    rebuild: bool = False,
) -> Path:
    """Builds ``model.engine`` and its record ``engine.json`` in the bundle's folder, for this machine's GPU.

    Kernel times are kept in ``timing.cache``, so that the next build chooses the same kernels.

    Args:
        dla: DLA core to prefer, None: what the bundle was made for; the record lists where each layer runs.
        version_compatible: newer TensorRT of the same major version may load the engine.
        rebuild: drop the timing cache and measure anew.

    Raises:
        RequestError: not a TensorRT bundle, a zip, or a model that TensorRT refuses.
        MissingCapability: no TensorRT, no driver, no GPU, no such DLA core, a timing cache made elsewhere.
    """
    _check_bundle(bundle)
    trt = load_tensorrt()
    options = options_for(bundle, trt, dla, version_compatible)
    with Cuda() as gpu:
        fingerprint = fingerprint_of(trt, gpu)
        if rebuild:
            drop_timing(bundle.folder)
        timing = None if trt.__name__ == "tensorrt_rtx" else read_timing(bundle.folder, fingerprint)
        began = time.perf_counter()
        compiled = compile_onnx(trt, _source(bundle), options, timing=timing)
        seconds = time.perf_counter() - began
        driver = gpu.driver_version
    if timing is not None:
        write_timing(bundle.folder, compiled.timing, fingerprint)
    return write_engine(bundle, compiled, options, {**fingerprint, "driver": driver}, seconds)


def build_times(bundle: Bundle, times: int, dla: int | None = None, version_compatible: bool = False) -> list[Build]:
    """Builds ``times`` engines, each with kernels measured anew, runs the golden vector on each and keeps the best.

    Builds differ: which kernel is fastest is measured, and kernels round differently (NVIDIA's TensorRT guide on
    determinism). The timing cache that stays belongs to the engine that stays.
    """
    if times < 1:
        raise RequestError(f"--times must be at least 1, not {times}")
    builds: list[Build] = []
    kept: dict[str, bytes] = {}
    for _ in range(times):
        began = time.perf_counter()
        engine = build_engine(bundle, dla, version_compatible, rebuild=True)
        seconds = time.perf_counter() - began
        builds.append(Build(seconds, sha256_file(engine), bundle.verify()))
        if best_of(builds) == len(builds) - 1:
            kept = {p.name: p.read_bytes() for p in _built_files(bundle)}
    (bundle.folder / ENGINE_RECORD).unlink(missing_ok=True)
    for name in sorted(kept, key=lambda n: n == ENGINE_RECORD):
        write_bytes(bundle.folder / name, kept[name])
    return builds


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


def options_for(bundle: Bundle, trt: Any, dla: int | None, version_compatible: bool) -> BuildOptions:
    """What the bundle was exported for, held against the TensorRT that is here.

    Raises:
        MissingCapability: exported for builder flags, but this TensorRT has none, or the other way round.
    """
    made, precision = bundle.manifest.build or {}, bundle.manifest.target.precision
    wanted = build_options(trt, str(bundle.path), made, precision)
    core = wanted.dla if dla is None else dla
    return dataclasses.replace(wanted, dla=core, version_compatible=version_compatible)


def fingerprint_of(trt: Any, gpu: Cuda) -> dict[str, str]:
    """What an engine and a timing cache belong to."""
    return {"module": trt.__name__, "version": trt.__version__, "gpu": gpu.name, "sm": gpu.sm}


def write_engine(
    bundle: Bundle, compiled: Compiled, options: BuildOptions, machine: dict[str, Any], seconds: float
) -> Path:
    """Writes the engine; its record goes first away and last there, so that a record is always of the engine beside it."""
    target, sidecar = bundle.folder / ENGINE, bundle.folder / ENGINE_RECORD
    sidecar.unlink(missing_ok=True)
    write_bytes(target, compiled.engine)
    record = {
        **machine,
        "version_compatible": options.version_compatible,
        "max_batch": options.max_batch,
        "dla": None if options.dla is None else dla_record(options.dla, compiled.placement),
        "onnx_sha256": bundle.manifest.files[bundle.manifest.model_file].sha256,
        "seconds": round(seconds, 2),
        "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "input_spec": bundle.manifest.input_spec.model_dump(mode="json"),
        "engine_sha256": sha256_file(target),
        "engine_bytes": len(compiled.engine),
    }
    write_json(sidecar, record)
    return target


def compile_gate(onnx_path: str | Path, sm: str = COMPILE_SM, max_batch: int = 1) -> dict[str, Any]:
    """Compiles an ONNX file with ``tensorrt_rtx`` for a GPU that need not be here; nothing is run.

    TensorRT for RTX knows no Jetson: SM86 stands in for Orin's SM87, the same generation with other sizes.

    Returns:
        ``ok``, ``seconds``, ``engine_bytes`` (None unless ok), ``message``, ``sm``, ``module``, ``version``.

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
    record: dict[str, Any] = {"sm": sm, "module": trt.__name__, "version": trt.__version__}
    began = time.perf_counter()
    try:
        engine = compile_onnx(trt, path, BuildOptions(max_batch=max_batch), capability).engine
    except RequestError as error:
        outcome: dict[str, Any] = {"ok": False, "engine_bytes": None, "message": str(error)}
    else:
        outcome = {"ok": True, "engine_bytes": len(engine), "message": f"compiles for {sm}"}
    return {**outcome, "seconds": round(time.perf_counter() - began, 2), **record}


def fits(record: dict[str, Any], version: str, sm: str) -> bool:
    """Whether an engine of this record may be loaded: same GPU generation, and the same TensorRT or, for a version-compatible
    engine, a newer one of the same major version."""
    if record["sm"] != sm:
        return False
    if record["version"] == version:
        return True
    there, here = version_pair(record["version"]), version_pair(version)
    return bool(record.get("version_compatible")) and there[0] == here[0] and here >= there


def _check_bundle(bundle: Bundle) -> None:
    if bundle.manifest.target.runtime != "tensorrt":
        raise RequestError(
            f"{bundle.path}: is built for {bundle.manifest.target.name}, which needs no TensorRT engine; only tensorrt bundles do"
        )
    if bundle.path != bundle.folder:
        raise RequestError(f"{bundle.path}: unzip the bundle first, the engine is written into its folder")


def _source(bundle: Bundle) -> Path:
    return bundle.folder / bundle.manifest.model_file


def _built_files(bundle: Bundle) -> list[Path]:
    return [bundle.folder / n for n in built_later(bundle.manifest) if (bundle.folder / n).is_file()]
