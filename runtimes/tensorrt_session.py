"""Sessions over TensorRT engines built on this device (``rsedge build``)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import read_json, sha256_file
from rsedge.runtimes.cuda_driver import Cuda, CudaError
from rsedge.runtimes.manifest import ENGINE_RECORD
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    VALID,
    Array,
    Arrays,
    SessionBase,
    check_contract,
    outputs_of,
    parse_spec,
)
from rsedge.runtimes.tensorrt_build import fits
from rsedge.runtimes.tensorrt_module import DTYPES, last_errors, load_tensorrt, make_logger, sizes

if TYPE_CHECKING:
    import tensorrt as api


class TensorRtSession(SessionBase):
    """A deserialized engine with its buffers on one GPU (``CUDA`` or ``CUDA:1``).

    Inputs and outputs lie in page-locked memory; where CPU and GPU share it (Jetson) the engine works there without a copy.
    From the second run on, copies and kernels are launched as one CUDA graph. An engine with a batch range runs as many tiles
    of :meth:`stream` at once as it was built for.

    Attributes:
        execution: how tiles get through, e.g. ``shared memory, CUDA graph``; the reason where no graph could be captured.
    """

    runtime = "tensorrt"
    _graph: int | None

    def __init__(self, path: Path, spec: InputSpec | None, device: str = "CUDA", precision: str = "fp16") -> None:
        record = check_engine(path)
        trt = load_tensorrt(record["module"])
        self.runtime, self.runtime_version = record["module"], trt.__version__
        self._cuda = Cuda(_gpu_number(path, device))
        try:
            check_fits(path, record, trt.__version__, self._cuda)
            super().__init__(
                path, spec or parse_spec(json.dumps(record["input_spec"]), path), self._cuda.name, precision
            )
            self._load(trt, bool(record.get("version_compatible")), int(record.get("max_batch", 1)))
        except BaseException:
            self._cuda.close()
            raise

    def _load(self, trt: Any, version_compatible: bool, max_batch: int) -> None:
        self._logger = make_logger(trt)
        self._trt_runtime: api.Runtime | None = trt.Runtime(self._logger)
        assert self._trt_runtime is not None
        if version_compatible:  # such engines carry host code; the record's hash vouches for the file
            self._trt_runtime.engine_host_code_allowed = True
        engine = self._trt_runtime.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            raise MissingCapability(
                f"{self._path}: TensorRT {trt.__version__} cannot load this engine ({last_errors(self._logger)}); "
                f"build it anew: rsedge build {self._path.parent}"
            )
        self._engine: api.ICudaEngine | None = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        check_contract(self._path, inputs, [n for n in names if n not in inputs])
        self._batch = max_batch if engine.get_tensor_shape(INPUT)[0] == -1 else 1
        context = engine.create_execution_context()
        if context is None:
            raise MissingCapability(f"{self._path}: no room on the GPU for this engine: {last_errors(self._logger)}")
        self._context: api.IExecutionContext | None = context
        self._host: dict[str, Array] = {}
        self._addresses: dict[str, int] = {}
        for name in names:
            shape = (self._batch, *sizes(engine.get_tensor_shape(name))[1:])
            self._reserve(name, shape, self._dtype_of(engine, name))
        self._graph_input((1, *self._host[INPUT].shape[1:]), self._host[INPUT].dtype)
        self._runs, self._graph = 0, None
        self._set_batch(self._batch)
        self.execution = "shared memory" if self._cuda.integrated else "copies"

    def _reserve(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Memory for one tensor; on shared memory the host's is the device's."""
        assert self._context is not None
        self._host[name], address = self._cuda.pinned(shape, dtype)
        self._addresses[name] = address if self._cuda.integrated else self._cuda.allocate(self._host[name].nbytes)
        self._context.set_tensor_address(name, self._addresses[name])

    def _dtype_of(self, engine: api.ICudaEngine, name: str) -> str:
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise RequestError(f"{self._path}: tensor '{name}' has type {kind}, which rsedge does not pass")
        return DTYPES[kind]

    def _set_batch(self, count: int) -> None:
        assert self._context is not None
        self._tiles = count
        if self._batch > 1:
            self._context.set_input_shape(INPUT, (count, *self._host[INPUT].shape[1:]))
            self._runs, self._graph = 0, None

    def _run(self, dn: Array) -> Arrays:
        return self._run_batch([dn])[0]

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Runs as many tiles at once as the engine takes; results in order."""
        source = iter(inputs)
        while group := [self.prepare(one) for one in itertools.islice(source, self._batch)]:
            yield from self._run_batch(group)

    def _run_batch(self, tiles: Sequence[Array]) -> list[Arrays]:
        self._cuda.make_current()
        if len(tiles) != self._tiles:
            self._set_batch(len(tiles))
        for place, dn in zip(self._host[INPUT], tiles, strict=False):
            place[...] = dn[0]
        self._launch()
        self._cuda.synchronize()
        logits, valid = self._host[LOGITS], self._host[VALID]
        return [outputs_of(logits[i : i + 1].copy(), valid[i : i + 1].copy()) for i in range(len(tiles))]

    def _launch(self) -> None:
        """The first run as it is (TensorRT sets itself up in it), later ones as a graph if one can be captured."""
        self._runs += 1
        if self._runs == 2:
            self._capture()
        if self._graph is not None:
            self._cuda.launch(self._graph)
        else:
            self._enqueue()

    def _capture(self) -> None:
        memory = self.execution.partition(",")[0]
        try:
            self._graph = self._cuda.capture(self._enqueue)
            self.execution = f"{memory}, CUDA graph"
        except (CudaError, RequestError) as error:
            self.execution = f"{memory}, no CUDA graph ({error})"

    def _enqueue(self) -> None:
        assert self._context is not None
        if not self._cuda.integrated:
            self._cuda.upload(self._addresses[INPUT], self._host[INPUT])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RequestError(f"{self._path}: the engine did not run: {last_errors(self._logger)}")
        if not self._cuda.integrated:
            for name in (LOGITS, VALID):
                self._cuda.download(self._host[name], self._addresses[name])

    def close(self) -> None:
        super().close()
        self._host = {}
        self._context = self._engine = self._trt_runtime = None
        self._cuda.close()


def check_engine(path: Path) -> dict[str, Any]:
    """The record beside an engine, after holding the engine against it.

    Raises:
        MissingCapability: no record, so nobody knows what the engine fits. IntegrityError: the engine was altered.
    """
    place = path.with_name(ENGINE_RECORD)
    rebuild = f"build it anew: rsedge build {path.parent}"
    if not place.is_file():
        raise MissingCapability(f"{path}: {ENGINE_RECORD} is missing beside it, so it may not fit this GPU; {rebuild}")
    record = read_json(place)
    needed = ("module", "version", "gpu", "sm", "onnx_sha256", "engine_sha256", "input_spec")
    if not isinstance(record, dict) or any(k not in record for k in needed):
        raise RequestError(f"{place}: not the record of an engine; {rebuild}")
    if record["module"] not in ("tensorrt", "tensorrt_rtx"):
        raise RequestError(f"{place}: unknown module '{record['module']}'; {rebuild}")
    if sha256_file(path) != record["engine_sha256"]:
        raise IntegrityError(f"{path}: truncated or altered (SHA-256 differs from {ENGINE_RECORD}); {rebuild}")
    return record


def check_fits(path: Path, record: dict[str, Any], version: str, gpu: Cuda) -> None:
    """Refuses an engine built by another TensorRT version or for another GPU.

    Raises:
        MissingCapability: names both sides and the command that builds a fitting one.
    """
    here, there = f"{version} on {gpu.name} ({gpu.sm})", f"{record['version']} on {record['gpu']} ({record['sm']})"
    if not fits(record, version, gpu.sm):
        raise MissingCapability(
            f"{path}: was built by TensorRT {there}, this machine has {here}; engines do not carry over, build it "
            f"anew: rsedge build {path.parent}"
        )


def _gpu_number(path: Path, device: str) -> int:
    _, _, number = device.partition(":")
    if number and not number.isdigit():
        raise RequestError(f"{path}: '{device}' names no GPU; write CUDA or CUDA:0")
    return int(number or 0)
