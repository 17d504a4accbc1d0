"""Running an engine: one code path for TensorRT 8.5 to 11 and TensorRT for RTX, for sessions and the remote runner.

Travels with the runner: Python 3.8, NumPy and the device's own TensorRT. The tensor interface used here
(``get_tensor_name``, ``set_tensor_address``, ``execute_async_v3``) is there since TensorRT 8.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.tensorrt.cuda_driver import Cuda, CudaError
from rsedge.runtimes.tensorrt.module import DTYPES, last_errors, make_logger, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tensorrt as api


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


def layer_rows(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The profile of an engine as rows: ``name``, ``type`` and ``kernel`` (which TensorRT does not tell), mean ``ms``."""
    return [{"name": name, "type": "", "kernel": "", "ms": sum(ms) / len(ms)} for name, ms in times.items()]


class EngineRunner:
    """A deserialized engine with its buffers on one GPU.

    Inputs and outputs lie in page-locked memory; where CPU and GPU share it (Jetson) the engine works there without a copy.
    From the second run on, copies and kernels are launched as one CUDA graph.

    Attributes:
        inputs, outputs: names of the tensors.
        batch: tiles in one run at most.
        host: an array of ``batch`` tiles per tensor, by name; keep no view of it beyond :meth:`close`.
        execution: how tiles get through, e.g. ``shared memory, CUDA graph``; the reason where no graph could be captured.
    """

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        engine: bytes,
        where: str,
        rebuild: str,
        max_batch: int = 1,
        version_compatible: bool = False,
    ) -> None:
        """Loads an engine.

        Args:
            where, rebuild: the file and a hint, for messages.
            max_batch: what the engine was built for; of use where its batch is dynamic.
            version_compatible: such engines carry code for the host; allow it only where the file is trusted.

        Raises:
            MissingCapability: this TensorRT or GPU cannot take the engine.
            RequestError: a tensor of a type that is not passed.
        """
        self._where, self._cuda, self._trt = where, cuda, trt
        self._logger = make_logger(trt)
        self._runtime: api.Runtime | None = trt.Runtime(self._logger)
        assert self._runtime is not None
        if version_compatible:
            self._runtime.engine_host_code_allowed = True
        loaded = self._runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            reason = last_errors(self._logger)
            raise MissingCapability(
                f"{where}: TensorRT {trt.__version__} cannot load this engine ({reason}); {rebuild}"
            )
        self._engine: api.ICudaEngine | None = loaded
        names = [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]
        self.inputs = [n for n in names if loaded.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.outputs = [n for n in names if n not in self.inputs]
        self._context: api.IExecutionContext | None = loaded.create_execution_context()
        if self._context is None:
            raise MissingCapability(f"{where}: no room on the GPU for this engine: {last_errors(self._logger)}")
        self._dynamic = any(loaded.get_tensor_shape(n)[0] == -1 for n in self.inputs)
        self.batch = max_batch if self._dynamic else 1
        self.host: dict[str, Any] = {}
        self._addresses: dict[str, int] = {}
        for name in names:
            self._reserve(name, (self.batch, *sizes(loaded.get_tensor_shape(name))[1:]), self._dtype_of(loaded, name))
        self._graphs_wanted = True
        self._graph: int | None = None
        self._set_batch(self.batch)
        self.execution = "shared memory" if cuda.integrated else "copies"

    def run(self, feeds: Mapping[str, Sequence[Any]]) -> int:
        """Runs the tiles of ``feeds`` (by input, each without its batch axis) and leaves the results in the first rows of
        ``host``; returns their number when they are there.

        Raises:
            RequestError: more tiles than ``batch``, or the engine did not run.
        """
        self._cuda.make_current()
        count = len(next(iter(feeds.values())))
        if not 1 <= count <= self.batch:
            raise RequestError(f"{self._where}: takes 1 to {self.batch} tiles in one run, got {count}")
        if count != self._tiles:
            self._set_batch(count)
        for name, tiles in feeds.items():
            for i, tile in enumerate(tiles):
                self.host[name][i] = tile
        self._launch()
        self._cuda.synchronize()
        return count

    def profile(self, feeds: Mapping[str, Sequence[Any]], runs: int) -> dict[str, list[float]]:
        """Milliseconds of each layer in each of ``runs`` runs, in the engine's order (``IProfiler``). Graphs tell no layers,
        so from here on the engine runs without."""
        assert self._context is not None
        self._graphs_wanted = False
        self._graph = None
        profiler = make_profiler(self._trt)
        self._context.profiler = self._profiler = profiler
        for _ in range(runs):
            self.run(feeds)
        return dict(profiler.times)

    def close(self) -> None:
        """Drops the engine; the GPU's memory goes with :meth:`Cuda.close`."""
        self.host = {}
        self._context = self._engine = self._runtime = None

    def _reserve(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Memory for one tensor; on shared memory the host's is the device's."""
        assert self._context is not None
        self.host[name], address = self._cuda.pinned(shape, dtype)
        self._addresses[name] = address if self._cuda.integrated else self._cuda.allocate(self.host[name].nbytes)
        self._context.set_tensor_address(name, self._addresses[name])

    def _dtype_of(self, engine: api.ICudaEngine, name: str) -> str:
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise RequestError(f"{self._where}: tensor '{name}' has type {kind}, which rsedge does not pass")
        return DTYPES[kind]

    def _set_batch(self, count: int) -> None:
        assert self._context is not None
        self._tiles, self._runs = count, 0
        self._graph = None
        if self._dynamic:
            for name in self.inputs:
                self._context.set_input_shape(name, (count, *self.host[name].shape[1:]))

    def _launch(self) -> None:
        """The first run as it is (TensorRT sets itself up in it), later ones as a graph if one can be captured."""
        self._runs += 1
        if self._runs == 2 and self._graphs_wanted:
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
            for name in self.inputs:
                self._cuda.upload(self._addresses[name], self.host[name])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise RequestError(f"{self._where}: the engine did not run: {last_errors(self._logger)}")
        if not self._cuda.integrated:
            for name in self.outputs:
                self._cuda.download(self.host[name], self._addresses[name])
