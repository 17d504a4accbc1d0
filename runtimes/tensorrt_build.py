"""Building TensorRT engines: for real on the device, and as a compile check on a machine without a GPU.

From TensorRT 10 networks are strongly typed: the ONNX file's own types and its explicit quantize/dequantize pairs
decide what runs in fp16 or int8, so that the engine computes what was verified before it left.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, write_bytes, write_json
from rsedge.runtimes.bundle import Bundle
from rsedge.runtimes.cuda_driver import Cuda
from rsedge.runtimes.manifest import ENGINE, ENGINE_RECORD
from rsedge.runtimes.tensorrt_engine import compile_onnx
from rsedge.runtimes.tensorrt_module import load_tensorrt

COMPILE_SM = "SM86"


def build_engine(bundle: Bundle) -> Path:
    """Builds ``model.engine`` and its record ``engine.json`` in the bundle's folder, for this machine's GPU.

    Raises:
        RequestError: not a TensorRT bundle, a zip, or a model that TensorRT refuses.
        MissingCapability: no TensorRT, no driver, no GPU.
    """
    manifest = bundle.manifest
    if manifest.target.runtime != "tensorrt":
        raise RequestError(
            f"{bundle.path}: is built for {manifest.target.name} and ready to run; only tensorrt bundles need building"
        )
    if bundle.path != bundle.folder:
        raise RequestError(f"{bundle.path}: unzip the bundle first, the engine is written into its folder")
    trt = load_tensorrt()
    gpu = Cuda()
    source = bundle.folder / manifest.model_file
    began = time.perf_counter()
    try:
        engine = compile_onnx(trt, source, precision=manifest.target.precision)
        record = {
            "module": trt.__name__,
            "version": trt.__version__,
            "gpu": gpu.name,
            "sm": gpu.sm,
            "driver": gpu.driver_version,
            "onnx_sha256": manifest.files[manifest.model_file].sha256,
            "seconds": round(time.perf_counter() - began, 2),
            "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "input_spec": manifest.input_spec.model_dump(mode="json"),
        }
    finally:
        gpu.close()
    return _write(bundle.folder, engine, record)


def compile_gate(onnx_path: str | Path, sm: str = COMPILE_SM) -> dict[str, Any]:
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
        engine = compile_onnx(trt, path, capability)
    except RequestError as error:
        outcome: dict[str, Any] = {"ok": False, "engine_bytes": None, "message": str(error)}
    else:
        outcome = {"ok": True, "engine_bytes": len(engine), "message": f"compiles for {sm}"}
    return {**outcome, "seconds": round(time.perf_counter() - began, 2), **record}


def _write(folder: Path, engine: bytes, record: dict[str, Any]) -> Path:
    """The record goes first away and last there, so that an engine with a record is always the one it describes."""
    target, sidecar = folder / ENGINE, folder / ENGINE_RECORD
    sidecar.unlink(missing_ok=True)
    write_bytes(target, engine)
    write_json(sidecar, {**record, "engine_sha256": sha256_file(target), "engine_bytes": len(engine)})
    return target
