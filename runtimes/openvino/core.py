"""What sessions and the remote runner share of OpenVINO: device checks, settings and requests in flight.

Travels with the runner: Python 3.8, nothing imported but the standard library, NumPy and our own that travel too.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.checked import CheckedModel, Model
from rsedge.runtimes.cores import threads_used

# CPU: activations outside quantized layers stay f32, so that a host with bf16 units gives the numbers of one without, but for
# files in which the INT8 search found bf16 faster and as good (float_options).
_HINTS = {
    "CPU": {"f32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"},
    "GPU": {"f32": "f32", "int8": "f16", "fp16": "f16"},
    "NPU": {"int8": "f16", "fp16": "f16"},
}
"""Device -> precision -> INFERENCE_PRECISION_HINT; what is not there, the device cannot do (OpenVINO's device pages)."""
_NEEDS_CPU = {"bf16": "BF16", "fp16": "FP16"}
FLOAT_KEY = "rsedge_float"
"""Under it an INT8 IR says in what its layers that are not quantized are best computed: ``f32`` or ``bf16``."""
_FLOATS = ("f32", "bf16")


def settings(device: str, precision: str, threads: int | None, hint: str = "latency") -> dict[str, Any]:
    """Properties for :func:`compile_model`; ``hint`` is ``latency`` or ``throughput``.

    Raises:
        MissingCapability: the device has no such precision; says which it has.
    """
    kind = device.partition(".")[0]
    hints = _HINTS.get(kind, _HINTS["CPU"])
    if precision not in hints:
        raise MissingCapability(f"OpenVINO's {kind} does not compute in {precision}; it has {', '.join(hints)}")
    found: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper(), "INFERENCE_PRECISION_HINT": hints[precision]}
    if kind == "CPU":
        found["INFERENCE_NUM_THREADS"] = threads_used(threads)
        # Where only weights are compressed, a host with VNNI would else round activations too, unasked.
        found["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    return found


def float_precision(path: Model, model: Any) -> str:
    """In what a file asks for its layers that are not quantized; f32 where it says nothing.

    Raises:
        RequestError: another word stands there.
    """
    try:
        found = str(model.get_rt_info([FLOAT_KEY]).astype(str)) if model.has_rt_info([FLOAT_KEY]) else _FLOATS[0]
    except UnicodeError as error:
        raise RequestError(f"{path}: what it says under {FLOAT_KEY} is no text; copy the file again") from error
    if found not in _FLOATS:
        raise RequestError(f"{path}: asks for layers in {found[:20]!r} ({FLOAT_KEY}), known: {', '.join(_FLOATS)}")
    return found


def float_options(core: Any, path: Model, model: Any, device: str, precision: str) -> dict[str, Any]:
    """What a file's own wish adds to :func:`settings`: INT8 with bf16 for the rest, on processors that have it; elsewhere f32.

    Raises:
        RequestError: as :func:`float_precision`.
    """
    wish = float_precision(path, model)
    heeded = device == "CPU" and precision == "int8" and wish == "bf16"
    return {"INFERENCE_PRECISION_HINT": wish} if heeded and has_bf16(core) else {}


def has_bf16(core: Any) -> bool:
    """Whether this processor computes in bf16 itself."""
    return _NEEDS_CPU["bf16"] in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.lru_cache
def shared_core() -> Any:
    """The one ``openvino.Core`` of this process.

    Each core loads a CPU plugin of its own, and each plugin puts a stack for signal handlers in place and takes it away
    again when it goes. Cores that overlap and go in another order than they came leave a freed stack behind, and then
    Ctrl-C ends the process by a segmentation fault (seen with OpenVINO 2026.4).

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()


def is_here(core: Any, device: str) -> bool:
    """Whether OpenVINO finds a device (``NPU``, ``GPU.1``) on this machine."""
    return device.partition(".")[0] in {a.partition(".")[0] for a in core.available_devices}


def check_device(core: Any, path: Model, device: str, precision: str) -> None:
    """Refuses a device that is not here and a precision that it would silently replace.

    Raises:
        MissingCapability: says what there is instead.
    """
    if not is_here(core, device):
        raise MissingCapability(
            f"{path}: OpenVINO finds no {device} on this machine (it finds: {', '.join(core.available_devices) or 'nothing'}); "
            "install the device's driver, or use a bundle for one of these"
        )
    need = _NEEDS_CPU.get(precision)
    if device == "CPU" and need and need not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        raise MissingCapability(
            f"{path}: this CPU has no {need} units, so precision '{precision}' would silently run as f32; "
            "use an f32 or int8 bundle here"
        )


def read_model(core: Any, path: Model) -> Any:
    """An OpenVINO model. A checked one is handed over in memory: OpenVINO would map a file's weights, and what is written into
    the file later would change answers, or end the process where the file gets shorter.

    Raises:
        RequestError: the file is truncated, altered or no model.
    """
    try:
        if isinstance(path, CheckedModel):
            return _from_memory(core, path)
        return core.read_model(str(path))
    except (RuntimeError, UnicodeError) as error:  # what the library says need not be UTF-8
        raise RequestError(
            f"{path}: OpenVINO cannot read this model; the file (or its .bin) is truncated, altered or no model: "
            f"{last_line(error)}"
        ) from error


_WHOLE = ("boolean", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "f32", "f64", "dynamic")
_STORED = ("i4", "u4", "nf4")
_WAITING = 2
"""Requests beyond those that the device runs at once."""


def check_types(path: Model, model: Any) -> None:
    """Refuses values that take no whole bytes, but for weights as they are stored: OpenVINO computes ``u1`` past the end of its
    memory (seen with 2026.4); and texts, which no network computes.

    Raises:
        RequestError: names the type.
    """
    for node in model.get_ops():
        stored = node.get_type_name() == "Constant"
        for port in node.outputs():
            kind = port.get_element_type().get_type_name()
            if kind not in _WHOLE and not (stored and kind in _STORED):
                raise RequestError(
                    f"{path}: computes values of type {kind}, which no model of rsedge's does; have it made anew"
                )


def _from_memory(core: Any, model: CheckedModel) -> Any:
    content = model.content()
    return (
        core.read_model(content) if model.suffix == ".onnx" else core.read_model(content, _own_tensor(model.weights()))
    )


def _own_tensor(content: bytes) -> Any:
    """Content in memory of OpenVINO's own, which lives as long as constants point into it; a view of ours would not."""
    import numpy as np
    import openvino

    tensor = openvino.Tensor(openvino.Type.u8, openvino.Shape([len(content)]))
    tensor.data[:] = np.frombuffer(content, np.uint8)
    return tensor


def compile_model(core: Any, model: Any, path: Model, device: str, options: dict[str, Any]) -> Any:
    """A compiled model.

    Raises:
        RequestError: OpenVINO refuses it; holds its last words.
    """
    try:
        return core.compile_model(model, device, options)
    except (RuntimeError, UnicodeError) as error:  # what the library says need not be UTF-8
        raise RequestError(f"{path}: OpenVINO cannot compile this model for {device}: {last_line(error)}") from error


@contextlib.contextmanager
def running(path: Model) -> Iterator[None]:
    """Turns OpenVINO's own errors into ours: as a model runs, or says what it takes and gives.

    Raises:
        RequestError: holds its last words.
    """
    try:
        yield
    except (RuntimeError, UnicodeError) as error:  # what the library says need not be UTF-8
        raise RequestError(
            f"{path}: OpenVINO fails as it runs this model ({last_line(error)}); copy it again, or have it made anew"
        ) from error


def port_name(port: Any, known: Iterable[str] = ()) -> str:
    """The name of an input or output: a known one, where a tensor has several; empty where it has none."""
    names = port.get_names()
    return next((n for n in known if n in names), min(names, default=""))


def in_flight(
    path: Model, compiled: Any, feeds: Iterable[dict[str, Any]], fetch: Callable[[Any], Any]
) -> Iterator[Any]:
    """Runs feeds with as many requests in flight as the device asks for and a few more, so that it finds the next one ready while
    results are taken; ``fetch`` takes those of a finished request, in the order of the feeds.

    Requests are waited for, not called back: a Python callback that still runs while a model is taken down can lock
    up the process (seen with OpenVINO 2026.4).
    """
    best = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    free = [compiled.create_infer_request() for _ in range(best + _WAITING)]
    busy: collections.deque[Any] = collections.deque()

    def finish() -> Any:
        request = busy[0]
        with running(path):
            request.wait()
            busy.popleft()
            free.append(request)
            return fetch(request)

    try:
        for feed in feeds:
            if not free:
                yield finish()
            request = free.pop()
            with running(path):
                request.start_async(feed)
            busy.append(request)
        while busy:
            yield finish()
    finally:
        for request in busy:
            with contextlib.suppress(RuntimeError):  # one that failed has been waited for, too
                request.wait()


def last_line(error: Exception) -> str:
    """The last line of a message that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
