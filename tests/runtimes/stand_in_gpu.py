# ruff: noqa: N802 - the names are the driver's
"""A stand-in for libcuda and TensorRT in host memory, to run our side of both interfaces up to the driver call.

It checks what a real driver would: addresses it gave out, sizes, streams, nothing freed twice, nothing executed while a graph
is captured. It proves nothing about a GPU.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from tests.runtimes import tiny_models as tiny

STREAM = 7


class Driver:
    """The calls of libcuda that ``Cuda`` makes, over host memory. ``log`` holds their names."""

    def __init__(self, integrated: bool = False, capturable: bool = True) -> None:
        self.integrated, self.capturable = integrated, capturable
        self.log: list[str] = []
        self.live: dict[int, Any] = {}
        self.recorded: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        """Calls without an effect here."""
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *_: self._done(name)

    def _done(self, name: str) -> int:
        self.log.append(name)
        return 0

    def do(self, work: Callable[[], None]) -> None:
        """Work in stream order: at once, or into the graph that is being captured."""
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 1
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 7, 18: int(self.integrated)}[attribute]
        return 0

    def cuDriverGetVersion(self, value: Any) -> int:
        value._obj.value = 12060
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> int:
        text.value = b"Orin"
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 1
        return self._done("cuDevicePrimaryCtxRetain")

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        stream._obj.value = STREAM
        return self._done("cuStreamCreate")

    def _allocate(self, size: int) -> int:
        memory = (ctypes.c_byte * size)()
        self.live[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        address._obj.value = self._allocate(size.value)
        return self._done("cuMemAlloc")

    def cuMemHostAlloc(self, host: Any, size: Any, flags: int) -> int:
        host._obj.value = self._allocate(size.value)
        return self._done("cuMemHostAlloc")

    def cuMemHostGetDevicePointer_v2(self, device: Any, host: Any, flags: int) -> int:
        device._obj.value = host.value
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        del self.live[address.value]
        return self._done("cuMemFree")

    def cuMemFreeHost(self, host: Any) -> int:
        del self.live[host.value]
        return self._done("cuMemFreeHost")

    def cuMemcpyHtoDAsync_v2(self, device: Any, host: Any, size: Any, stream: Any) -> int:
        assert size.value <= len(self.live[device.value]) and stream.value == STREAM
        self.do(lambda: void(ctypes.memmove(device.value, host.value, size.value)))
        return self._done("upload")

    def cuMemcpyDtoHAsync_v2(self, host: Any, device: Any, size: Any, stream: Any) -> int:
        assert size.value <= len(self.live[device.value]) and stream.value == STREAM
        self.do(lambda: void(ctypes.memmove(host.value, device.value, size.value)))
        return self._done("download")

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        self.recorded = []
        return self._done("begin")

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        self.graphs[len(self.graphs) + 1], self.recorded = self.recorded or [], None
        graph._obj.value = len(self.graphs)
        self._done("end")
        return 0 if self.capturable else 900

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> int:
        ready._obj.value = graph.value
        return self._done("instantiate")

    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:
        assert stream.value == STREAM
        for work in self.graphs[graph.value]:
            work()
        return self._done("launch")

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"operation not permitted when stream is capturing"
        return 0


def void(_: object) -> None:
    """For lambdas whose value nobody wants."""


def tensorrt(driver: Driver, contract: InputSpec, batch: int = 1) -> types.SimpleNamespace:
    """A module with the part of TensorRT's API that a session uses; its engine computes ``tiny_models.reference``."""
    tile = (contract.channels, contract.tile, contract.tile)
    first = -1 if batch > 1 else 1
    shapes = {
        "dn": (first, *tile),
        "logits": (first, len(tiny.CLASSES), *tile[1:]),
        "valid": (first, *tile[1:]),
    }
    kinds = {"dn": "FLOAT", "logits": "FLOAT", "valid": "UINT8"}
    mode = types.SimpleNamespace(INPUT="in", OUTPUT="out")

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}
            self.count = 1

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert address in driver.live
            self.addresses[name] = address
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert name == "dn" and shape[1:] == tile and 1 <= shape[0] <= batch
            self.count = shape[0]
            return True

        def execute_async_v3(self, stream: int) -> bool:
            assert stream == STREAM
            driver.do(self.compute)
            return True

        def compute(self) -> None:
            arrays = {}
            for name, shape in shapes.items():
                size = (self.count, *shape[1:])
                dtype = np.uint8 if kinds[name] == "UINT8" else np.float32
                memory = driver.live[self.addresses[name]]
                arrays[name] = np.frombuffer(memory, dtype, int(np.prod(size))).reshape(size)
            for i in range(self.count):
                arrays["logits"][i], arrays["valid"][i] = tiny.reference(contract, arrays["dn"][i])

    engine = types.SimpleNamespace(
        num_io_tensors=3,
        get_tensor_name=lambda i: list(shapes)[i],
        get_tensor_mode=lambda n: "in" if n == "dn" else "out",
        get_tensor_shape=lambda n: shapes[n],
        get_tensor_dtype=lambda n: types.SimpleNamespace(name=kinds[n]),
        create_execution_context=Context,
    )

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            return engine if content == b"engine" else None

    class Logger:
        ERROR, INTERNAL_ERROR = 1, 0

    return types.SimpleNamespace(
        __name__="tensorrt", __version__="10.3.0", Runtime=Runtime, TensorIOMode=mode, ILogger=Logger, Builder=object
    )
