"""The few CUDA driver calls that an engine needs, through ``libcuda`` itself: no Python CUDA package on board.

Travels with the remote runner: Python 3.8, NumPy and the error types only.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from rsedge.data.errors import MissingCapability

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rsedge.runtimes.session import Array

_LIBRARIES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
_COMPUTE_MAJOR, _COMPUTE_MINOR, _INTEGRATED = 75, 76, 18
_PORTABLE_MAPPED = 0x01 | 0x02
_CAPTURE_THREAD_LOCAL = 1


class CudaError(RuntimeError):
    """A driver call failed; holds the call and the driver's words."""


class Cuda:
    """One GPU's primary context, a stream and device memory.

    Attributes:
        name: the GPU's name. sm: its compute capability as ``SM87``. driver_version: e.g. 12060.
        integrated: CPU and GPU share their memory (Jetson), so that nothing need be copied.
    """

    def __init__(self, device: int = 0) -> None:
        """Opens a GPU.

        Raises:
            MissingCapability: no driver, or no such GPU.
        """
        self._lib = _library()
        if code := self._lib.cuInit(0):
            raise MissingCapability(f"the NVIDIA driver finds no usable GPU ({self._reason(code)}); see nvidia-smi")
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if not 0 <= device < count.value:
            raise MissingCapability(f"no GPU number {device} on this machine (it has {count.value})")
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), device)
        self.name, self.sm, self.driver_version = self._name(), self._sm(), self._version()
        self.integrated = bool(self._attribute(_INTEGRATED))
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.make_current()
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), 0)
        self._memory: list[ctypes.c_uint64] = []
        self._pinned: list[ctypes.c_void_p] = []
        self._graphs: list[ctypes.c_void_p] = []

    def __enter__(self) -> Cuda:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def make_current(self) -> None:
        """Binds the context to the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Device address of ``size`` bytes, freed on :meth:`close`."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._memory.append(address)
        return address.value

    def pinned(self, shape: tuple[int, ...], dtype: str) -> tuple[Array, int]:
        """A host array in page-locked memory and its address on the device: the same memory, no copy, where it is shared.

        It lives until :meth:`close`; keep no view of it beyond that.
        """
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        host, device = ctypes.c_void_p(), ctypes.c_uint64()
        self._call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(size), _PORTABLE_MAPPED)
        self._pinned.append(host)
        self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(device), host, 0)
        buffer = (ctypes.c_byte * size).from_address(int(host.value or 0))
        array: Array = np.frombuffer(memoryview(buffer), dtype=dtype, count=int(np.prod(shape))).reshape(shape)
        return array, device.value

    def capture(self, enqueue: Callable[[], None]) -> int:
        """Records what ``enqueue`` puts on the stream, without running it; a handle for :meth:`launch`.

        Raises:
            CudaError: something in it cannot be captured.
        """
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_THREAD_LOCAL)
        try:
            enqueue()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        self._graphs.append(ready)
        return len(self._graphs) - 1

    def launch(self, graph: int) -> None:
        """Runs a captured graph in stream order."""
        self._call("cuGraphLaunch", self._graphs[graph], self._stream)

    def upload(self, address: int, array: Array) -> None:
        """Copies a contiguous array to the device, in stream order; the array must live until :meth:`synchronize`."""
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, ctypes.c_size_t(array.nbytes), self._stream)

    def download(self, array: Array, address: int) -> None:
        """Copies device memory into a contiguous array, in stream order; complete after :meth:`synchronize`."""
        if not array.flags["C_CONTIGUOUS"]:
            raise ValueError("download needs a contiguous array")
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes), self._stream)

    def free_bytes(self) -> int:
        """Memory of the GPU that is free now; on Jetson this is the memory that CPU and GPU share."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Frees memory, stream and context; twice does no harm."""
        if not self._context:
            return
        self.make_current()
        for address in self._memory:
            self._call("cuMemFree_v2", address)
        for graph in self._graphs:
            self._call("cuGraphExecDestroy", graph)
        for host in self._pinned:
            self._call("cuMemFreeHost", host)
        self._memory, self._graphs, self._pinned = [], [], []
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)
        self._context = ctypes.c_void_p()

    def _name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode(errors="replace")

    def _sm(self) -> str:
        return f"SM{self._attribute(_COMPUTE_MAJOR)}{self._attribute(_COMPUTE_MINOR)}"

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _version(self) -> int:
        value = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(value))
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        if code := getattr(self._lib, function)(*arguments):
            raise CudaError(f"{function}: {self._reason(code)}")

    def _reason(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._lib.cuGetErrorString(code, ctypes.byref(text))
        return f"error {code}: {text.value.decode(errors='replace') if text.value else 'unknown'}"


def _library() -> Any:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingCapability(
        "no NVIDIA driver on this machine (libcuda.so.1 is missing): TensorRT engines are built and run on the device "
        "itself, or on a PC with an NVIDIA GPU and its driver"
    )
