"""Compiling ONNX to an engine and running it: one code path for TensorRT 8.5 to 11 and TensorRT for RTX.

Travels with the remote runner: Python 3.8, NumPy and the device's own TensorRT. The tensor interface used here
(``get_tensor_name``, ``set_tensor_address``, ``execute_async_v3``) is there since TensorRT 8.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.cuda_driver import Cuda
from rsedge.runtimes.tensorrt_module import DTYPES, last_errors, make_logger, version_of

STRONGLY_TYPED_SINCE = (10, 0)


def compile_onnx(trt: Any, path: Path, capability: Any = None, precision: str | None = None) -> bytes:
    """A serialized engine of a typed ONNX file.

    From TensorRT 10 the file's own types decide what runs in fp16 or int8; before, builder flags do.

    Args:
        capability: GPU generation to compile for (``tensorrt_rtx`` only); None: the GPU of this machine.
        precision: ``f32``, ``fp16`` or ``int8``, of use before TensorRT 10 only.

    Raises:
        RequestError: TensorRT cannot parse or compile it; holds TensorRT's words.
        MissingCapability: TensorRT does not start.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the binding's way to say that the library returned nothing
        raise MissingCapability(f"{trt.__name__} {trt.__version__} does not start: {last_errors(logger)}") from error
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        raise RequestError(f"{path}: {trt.__name__} {trt.__version__} cannot parse it: {'; '.join(reasons)}")
    config = builder.create_builder_config()
    for flag in builder_flags(trt, precision):
        config.set_flag(flag)
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RequestError(f"{path}: {trt.__name__} {trt.__version__} cannot compile it: {last_errors(logger)}")
    return bytes(engine)


def strongly_typed(trt: Any) -> bool:
    """True where the types in the ONNX file decide the precision; TensorRT for RTX knows nothing else."""
    return trt.__name__ != "tensorrt" or version_of(trt) >= STRONGLY_TYPED_SINCE


def network_flags(trt: Any) -> int:
    """Strongly typed, or explicit batch before TensorRT 10; a version that knows only one kind may lack its flag."""
    name = "STRONGLY_TYPED" if strongly_typed(trt) else "EXPLICIT_BATCH"
    flag = trt.NetworkDefinitionCreationFlag.__members__.get(name)
    return 0 if flag is None else 1 << int(flag)


def builder_flags(trt: Any, precision: str | None) -> list[Any]:
    """Flags that set the precision before TensorRT 10, the same as those of ``trtexec --fp16 --int8``."""
    if strongly_typed(trt):
        return []
    names: dict[str | None, tuple[str, ...]] = {"fp16": ("FP16",), "int8": ("FP16", "INT8")}
    return [getattr(trt.BuilderFlag, n) for n in names.get(precision, ())]


def make_profiler(trt: Any) -> Any:
    """An ``IProfiler`` that keeps the milliseconds of each layer in ``times``, in the order TensorRT reports them."""
    base = trt.IProfiler

    class Profiler(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(float(ms))

    return Profiler()


class EngineRunner:
    """A deserialized engine with its buffers on one GPU; ``host`` has an array per tensor, by name."""

    def __init__(self, trt: Any, cuda: Cuda, engine: bytes, where: str, rebuild: str) -> None:
        """Loads an engine; ``where`` and ``rebuild`` (a hint) are for messages.

        Raises:
            MissingCapability: this TensorRT or GPU cannot take the engine.
            RequestError: a tensor of a type that is not passed.
        """
        self._where, self._cuda, self._trt = where, cuda, trt
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            reason = last_errors(self._logger)
            raise MissingCapability(
                f"{where}: TensorRT {trt.__version__} cannot load this engine ({reason}); {rebuild}"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.outputs = [n for n in names if n not in self.inputs]
        self.host = {n: np.empty(tuple(self._engine.get_tensor_shape(n)), dtype=self._dtype_of(n)) for n in names}
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MissingCapability(f"{where}: no room on the GPU for this engine: {last_errors(self._logger)}")
        self._addresses = {n: cuda.allocate(a.nbytes) for n, a in self.host.items()}
        for name, address in self._addresses.items():
            self._context.set_tensor_address(name, address)

    def run(self, feeds: dict[str, Any]) -> None:
        """Uploads ``feeds``, runs, and leaves the results in ``host``; returns when they are there.

        Raises:
            RequestError: the engine did not run.
        """
        self._cuda.make_current()
        for name, array in feeds.items():
            self._cuda.upload(self._addresses[name], array)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RequestError(f"{self._where}: the engine did not run: {last_errors(self._logger)}")
        for name in self.outputs:
            self._cuda.download(self.host[name], self._addresses[name])
        self._cuda.synchronize()

    def profile(self, feeds: dict[str, Any], runs: int) -> dict[str, list[float]]:
        """Milliseconds of each layer in each of ``runs`` runs, in the engine's order (``IProfiler``)."""
        self._profiler = make_profiler(self._trt)
        self._context.profiler = self._profiler
        for _ in range(runs):
            self.run(feeds)
        return dict(self._profiler.times)

    def close(self) -> None:
        """Drops the engine; the GPU's memory goes with :meth:`Cuda.close`."""
        self._context = self._engine = self._runtime = None

    def _dtype_of(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise RequestError(f"{self._where}: tensor '{name}' has type {kind}, which rsedge does not pass")
        return DTYPES[kind]
