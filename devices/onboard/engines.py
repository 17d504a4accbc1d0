"""A bundle's model on the device, run by the runtime's own package alone: TensorRT, OpenVINO, ONNX Runtime or LiteRT with NumPy.

Each engine is called with ``dn`` [1, C, T, T] in the graph's dtype and gives ``(logits, valid)``. Settings are those of
:mod:`rsedge.runtimes`, so that a remote figure and one of ``rsedge bench`` on the device itself mean the same.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.cores import threads_used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rsedge.runtimes.checked import Model

    Notice = Callable[[str], None]

INPUT, OUTPUTS = "dn", ("logits", "valid")


class Engine:
    """What the runner needs of a model. ``build`` tells what was built on the device, None where nothing was."""

    runtime, version, device = "", "", "cpu"
    threads: int | None = None
    device_memory_bytes: int | None = None
    build: dict[str, Any] | None = None
    stream: Callable[[Iterator[Any]], Iterator[Any]] | None = None

    def __call__(self, dn: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def dtype(self) -> Any:
        """NumPy dtype of the graph's input."""
        raise NotImplementedError

    def layers(self, dn: Any, runs: int) -> list[dict[str, Any]]:
        """Mean milliseconds of each layer in the order of execution: ``name``, ``type``, ``kernel``, ``ms``."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the engine holds."""


class OpenVino(Engine):
    """OpenVINO IR or ONNX on CPU, GPU or NPU."""

    runtime = "openvino"

    def __init__(self, path: Model, device: str, precision: str, threads: int | None, profile: bool = False) -> None:
        try:
            import openvino as ov
        except ImportError as error:
            raise _missing("openvino", error) from error
        from rsedge.runtimes.openvino import core as core_of

        core = core_of.shared_core()
        self._path, self.version, self.device = path, ov.get_version(), device.lower()
        core_of.check_device(core, path, device, precision)
        options = core_of.settings(device, precision, threads)
        if profile:
            options["PERF_COUNT"] = "YES"
        self._model = core_of.read_model(core, path)
        options.update(core_of.float_options(core, path, self._model, device, precision))
        self._compiled = core_of.compile_model(core, self._model, path, device, options)
        self._request = self._compiled.create_infer_request()
        self.threads = threads_used(threads) if device == "CPU" else None
        self.stream = self._stream

    def __call__(self, dn: Any) -> tuple[Any, Any]:
        self._request.infer({INPUT: dn}, share_inputs=True)
        return _fetch(self._request)

    def dtype(self) -> Any:
        return self._model.input(INPUT).get_element_type().to_dtype()

    def _stream(self, inputs: Iterator[Any]) -> Iterator[Any]:
        from rsedge.runtimes.openvino.core import in_flight

        return in_flight(self._path, self._compiled, ({INPUT: dn} for dn in inputs), _fetch)

    def layers(self, dn: Any, runs: int) -> list[dict[str, Any]]:
        """Needs ``profile=True``. Layers that OpenVINO fused into another or optimised out are left out."""
        total: dict[str, dict[str, Any]] = {}
        for _ in range(runs):
            self(dn)
            for info in self._request.get_profiling_info():
                if "EXECUTED" in str(info.status) and "NOT_RUN" not in str(info.status):
                    row = total.setdefault(
                        info.node_name,
                        {"name": info.node_name, "type": info.node_type, "kernel": info.exec_type, "ms": 0.0},
                    )
                    row["ms"] += info.real_time.total_seconds() * 1e3 / runs
        return list(total.values())

    def close(self) -> None:
        self._request = self._compiled = None


class OnnxRuntime(Engine):
    """ONNX on a provider of ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(self, path: Model, device: str, precision: str, threads: int | None, profile: bool = False) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise _missing("onnxruntime", error) from error
        from rsedge.runtimes.onnxruntime import core as onnx_core

        self._folder = tempfile.TemporaryDirectory(prefix="rsedge-profile-") if profile else None
        prefix = None if self._folder is None else Path(self._folder.name) / "ort"
        self._session = onnx_core.open_onnx(ort, path, device, threads, prefix)
        self._dtype = onnx_core.input_dtype(self._session, path)
        self.version, self.device = ort.__version__, onnx_core.in_use(self._session).lower()
        self.threads = threads_used(threads)

    def __call__(self, dn: Any) -> tuple[Any, Any]:
        logits, valid = self._session.run(list(OUTPUTS), {INPUT: dn})
        return logits, valid

    def dtype(self) -> Any:
        return self._dtype

    def layers(self, dn: Any, runs: int) -> list[dict[str, Any]]:
        """Needs ``profile=True``; ends the profile, so it can be called once."""
        for _ in range(runs):
            self(dn)
        return onnx_layers(json.loads(Path(self._session.end_profiling()).read_text()), runs)

    def close(self) -> None:
        self._session = None
        if self._folder is not None:
            self._folder.cleanup()


class LiteRt(Engine):
    """A LiteRT model on the CPU."""

    runtime = "litert"

    def __init__(self, path: Model, device: str, threads: int | None) -> None:
        from rsedge.runtimes.litert import core as litert_core

        try:
            self.version = litert_core.litert_version()
        except ImportError as error:
            raise _missing("ai-edge-litert", error) from error
        opened = litert_core.open_litert(path, device, threads)
        self._path, self._interpreter, taken = path, opened.interpreter, opened.inputs[INPUT]
        self._running, self._dtype = litert_core.running, litert_core.dtype_of(taken, path)
        self._dn, self._outputs = taken["index"], [opened.outputs[name]["index"] for name in OUTPUTS]
        self.threads = threads_used(threads)

    def __call__(self, dn: Any) -> tuple[Any, Any]:
        with self._running(self._path):
            self._interpreter.set_tensor(self._dn, dn)
            self._interpreter.invoke()
            logits, valid = (self._interpreter.get_tensor(index) for index in self._outputs)
        return logits, valid

    def dtype(self) -> Any:
        return self._dtype

    def layers(self, dn: Any, runs: int) -> list[dict[str, Any]]:
        raise MissingCapability(f"{self._path}: LiteRT tells no times of layers; leave --layers out")

    def close(self) -> None:
        self._interpreter = None


class TensorRt(Engine):
    """An engine built here from the bundle's ONNX, on this device's GPU."""

    def __init__(
        self, path: Model, precision: str, made: dict[str, Any], notice: Notice, kept: Path | None = None
    ) -> None:
        from rsedge.runtimes.tensorrt.cuda_driver import Cuda
        from rsedge.runtimes.tensorrt.engine import EngineRunner
        from rsedge.runtimes.tensorrt.module import load_tensorrt

        trt = load_tensorrt()
        self.runtime, self.version = trt.__name__, trt.__version__
        self._cuda = Cuda()
        try:
            self.device = self._cuda.name
            engine = self._engine_of(trt, path, precision, made, notice, kept)
            free = self._cuda.free_bytes()
            most = int(made.get("max_batch", 1))
            self._engine = EngineRunner(trt, self._cuda, engine, str(path), "build it on this device", most)
            self.device_memory_bytes = max(0, free - self._cuda.free_bytes())
        except BaseException:
            self._cuda.close()
            raise

    def _engine_of(
        self, trt: Any, path: Model, precision: str, made: dict[str, Any], notice: Notice, kept: Path | None
    ) -> bytes:
        """Built once per job; the process that measures memory finds it in ``kept``."""
        from rsedge.runtimes.tensorrt.compile import build_options, compile_onnx
        from rsedge.runtimes.tensorrt.dla import dla_record
        from rsedge.runtimes.tensorrt.module import mechanism

        if kept is not None and kept.is_file():
            return kept.read_bytes()
        notice("building the engine")
        began = time.perf_counter()
        options = build_options(trt, str(path), made, precision)
        compiled = compile_onnx(trt, path, options)
        engine = compiled.engine
        self.build = {
            "seconds": round(time.perf_counter() - began, 2),
            "engine_bytes": len(engine),
            "precision_mechanism": mechanism(trt.__name__, trt.__version__, options.dla is not None),
            "dla": None if options.dla is None else dla_record(options.dla, compiled.placement),
            "gpu": self._cuda.name,
            "sm": self._cuda.sm,
            "driver": self._cuda.driver_version,
        }
        if kept is not None:
            kept.write_bytes(engine)
        return engine

    def __call__(self, dn: Any) -> tuple[Any, Any]:
        count = self._engine.run({INPUT: dn})
        logits, valid = (self._engine.host[n][:count].copy() for n in OUTPUTS)
        return logits, valid

    def dtype(self) -> Any:
        return self._engine.host[INPUT].dtype

    def layers(self, dn: Any, runs: int) -> list[dict[str, Any]]:
        from rsedge.runtimes.tensorrt.engine import layer_rows

        return layer_rows(self._engine.profile({INPUT: dn}, runs))

    def close(self) -> None:
        self._engine.close()
        self._cuda.close()


def open_engine(
    path: Model,
    runtime: str,
    device: str,
    precision: str,
    threads: int | None,
    profile: bool = False,
    notice: Notice = lambda _: None,
    made: dict[str, Any] | None = None,
    kept: Path | None = None,
) -> Engine:
    """Opens a model file with a runtime of this machine; ``profile`` prepares for :meth:`Engine.layers`, which costs time.
    ``made`` is the manifest's ``build``: what the model was exported for; ``kept`` is where a job keeps the engine it built,
    outside the bundle.

    Raises:
        RequestError: the runtime refuses the model, or does not exist.
        MissingCapability: runtime, device or precision is not there.
    """
    if device == "MYRIAD":
        raise MissingCapability(
            f"{path}: a Myriad is measured where rsedge and its OpenVINO 2022.3 are: rsedge bench there"
        )
    openers: dict[str, Callable[[], Engine]] = {
        "openvino": lambda: OpenVino(path, device, precision, threads, profile),
        "onnxruntime": lambda: OnnxRuntime(path, device, precision, threads, profile),
        "litert": lambda: LiteRt(path, device, threads),
        "tensorrt": lambda: TensorRt(path, precision, made or {}, notice, kept),
    }
    if runtime not in openers:
        raise RequestError(
            f"the runner that travels runs {', '.join(openers)}, not '{runtime}'; measure on the device itself: rsedge bench"
        )
    return openers[runtime]()


def onnx_layers(events: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """Layers from ONNX Runtime's profile (a list of trace events), mean over ``runs``."""
    total: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            arguments = event.get("args", {})
            kernel = arguments.get("provider", "")
            row = total.setdefault(
                name, {"name": name, "type": arguments.get("op_name", ""), "kernel": kernel, "ms": 0.0}
            )
            row["ms"] += event["dur"] / 1e3 / runs
    return list(total.values())


def _fetch(request: Any) -> tuple[Any, Any]:
    return request.get_tensor("logits").data.copy(), request.get_tensor("valid").data.copy()


def _missing(module: str, error: ImportError) -> MissingCapability:
    return MissingCapability(
        f"the device's Python cannot import '{module}' ({error}); install it there: python3 -m pip install {module} numpy, or "
        "name another interpreter with --remote-python"
    )
