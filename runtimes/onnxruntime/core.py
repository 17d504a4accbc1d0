"""Opening ONNX Runtime: the provider that was asked for, or an error. What sessions and the remote runner share.

Left alone, ONNX Runtime runs on the CPU whatever its provider cannot load or take. Here a missing provider, a node that a GPU
provider leaves to the CPU, and a partial provider (XNNPACK, ACL) that takes no node at all are refused.

Travels with the runner: Python 3.8, NumPy, the device's own ONNX Runtime and the error types.
"""

from __future__ import annotations

import collections
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.checked import CheckedModel, Model
from rsedge.runtimes.cores import threads_used

DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
}
CPU = "CPUExecutionProvider"
PROVIDERS: dict[str, tuple[str, ...]] = {
    "CPU": (CPU,),
    "CUDA": ("CUDAExecutionProvider",),
    "TENSORRT": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "XNNPACK": ("XnnpackExecutionProvider", CPU),
    "ACL": ("ACLExecutionProvider", CPU),
}
"""Device name -> providers in order of preference. Where the CPU is one of them, it takes what the first cannot."""
_REFUSED = "fallback to CPU EP has been explicitly disabled"
_DAMAGED = "the file is truncated, altered or no ONNX"
_INSTALL = {
    "CUDA": "install onnxruntime-gpu and an NVIDIA driver",
    "TENSORRT": "install onnxruntime-gpu, TensorRT and an NVIDIA driver",
    "XNNPACK": "use an ONNX Runtime built with --use_xnnpack (Arm)",
    "ACL": "use an ONNX Runtime built with --use_acl (Arm)",
}


def open_onnx(
    ort: Any, path: Model, device: str, threads: int | None, profile: Path | None = None, as_written: bool = False
) -> Any:
    """An ``InferenceSession`` on a device of :data:`PROVIDERS`.

    Args:
        threads: CPU threads; None: all cores.
        profile: beginning of the path of a profile, which ``end_profiling`` writes; None: none.
        as_written: no rewriting of the graph; see :func:`load`.

    Raises:
        RequestError: an unknown device, or a file that is truncated, altered or no ONNX.
        MissingCapability: the provider is not here, does not start, or leaves to the CPU what it was asked to run.
    """
    providers = _providers(ort, path, device)
    session = load(ort, path, providers, threads, profile, as_written)
    if providers[0] != CPU and CPU in providers:
        check_takes_nodes(ort, path, device, providers, threads)
    return session


@contextlib.contextmanager
def running(path: Model) -> Iterator[None]:
    """Turns ONNX Runtime's own errors into ours: as a model runs, or says what it takes and gives.

    Raises:
        RequestError: holds what it said.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures = (state.Fail, state.InvalidArgument, state.NotImplemented, state.RuntimeException, state.EPFail)
    try:
        yield
    except (*failures, UnicodeError) as error:  # names need not be UTF-8
        raise RequestError(
            f"{path}: ONNX Runtime fails as it runs this model ({error}); copy it again, or have it made anew"
        ) from error


def input_dtype(session: Any, path: Model) -> np.dtype[Any]:
    """NumPy dtype of the graph's input.

    Raises:
        RequestError: it holds no digital numbers.
    """
    return dtype_of(session.get_inputs()[0], path)


def dtype_of(entry: Any, path: Model, known: Mapping[str, str] = DTYPES) -> np.dtype[Any]:
    """NumPy dtype of one of a graph's inputs.

    Raises:
        RequestError: it holds no numbers of a ``known`` type.
    """
    dtype = known.get(entry.type)
    if dtype is None:
        raise RequestError(f"{path}: input '{entry.name}' has type {entry.type}, which holds no digital numbers")
    return np.dtype(dtype)


def in_use(session: Any) -> str:
    """The providers that a loaded session has, in order and in short form."""
    return "+".join(str(p).replace("ExecutionProvider", "").upper() for p in session.get_providers())


def _providers(ort: Any, path: Model, device: str) -> tuple[str, ...]:
    providers = PROVIDERS.get(device)
    if providers is None:
        raise RequestError(f"{path}: ONNX Runtime device '{device}' is unknown; choose {', '.join(PROVIDERS)}")
    available = ort.get_available_providers()
    if lacking := [p for p in providers if p not in available]:
        raise MissingCapability(
            f"{path}: ONNX Runtime here has no {lacking[0]} (it has {', '.join(available)}); {_INSTALL[device]}, or use CPU"
        )
    return providers


def options_for(
    ort: Any, providers: tuple[str, ...], threads: int | None, profile: Path | None = None
) -> tuple[Any, list[Any]]:
    """Session options, and providers with theirs."""
    options = ort.SessionOptions()
    used = threads_used(threads)
    options.intra_op_num_threads = used
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    chosen: list[Any] = list(providers)
    if CPU not in providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if providers[0] == "XnnpackExecutionProvider":  # it has a thread pool of its own; two that spin fight for the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = 1
        chosen[0] = (providers[0], {"intra_op_num_threads": str(used)})
    return options, chosen


def load(
    ort: Any,
    path: Model,
    providers: tuple[str, ...],
    threads: int | None,
    profile: Path | None = None,
    as_written: bool = False,
) -> Any:
    """An ``InferenceSession`` that has all of ``providers``; see :func:`open_onnx`.

    Args:
        as_written: every node as the file has it, nothing fused: slower, for a graph that is another runtime's. ONNX Runtime's
            own rewriting of quantize/dequantize pairs divides fp16 biases by scales that are zero in fp16 (seen in 1.32).
    """
    options, chosen = options_for(ort, providers, threads, profile)
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = created(ort, path, options, chosen)
    absent = [p for p in providers if p not in session.get_providers()]
    if absent:
        raise MissingCapability(
            f"{path}: ONNX Runtime has {absent[0]} but could not start it and would run on {in_use(session)} instead; "
            "see whether its libraries and driver are installed, or use CPU"
        )
    return session


def check_takes_nodes(ort: Any, path: Model, device: str, providers: tuple[str, ...], threads: int | None) -> None:
    """Refuses a partial provider that leaves the whole graph to the CPU."""
    placed = placement(ort, path, providers, threads)
    if not placed[providers[0]]:
        raise MissingCapability(
            f"{path}: {providers[0]} takes none of the {sum(placed.values())} operations of this model, all would run on the "
            f"CPU; use device CPU instead of {device}"
        )


def placement(ort: Any, path: Model, providers: tuple[str, ...], threads: int | None) -> collections.Counter[str]:
    """How many operations each provider runs: from ONNX Runtime's profile of one run on zeros."""
    with tempfile.TemporaryDirectory(prefix="rsedge-") as folder:  # the runner has no module of ours for it
        options, chosen = options_for(ort, providers, threads, Path(folder) / "profile")
        session = created(ort, path, options, chosen)
        entry = session.get_inputs()[0]
        zeros = np.zeros([d if isinstance(d, int) else 1 for d in entry.shape], DTYPES.get(entry.type, "float32"))
        session.run(None, {entry.name: zeros})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = [e.get("args", {}).get("provider") for e in events if e.get("cat") == "Node"]
    return collections.Counter(p for p in found if p)


def created(ort: Any, path: Model, options: Any, chosen: list[Any]) -> Any:
    """An ``InferenceSession`` by options and providers as ONNX Runtime takes them.

    Raises:
        RequestError: no model that it reads and runs. MissingCapability: a provider would leave parts to the CPU.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        given = path.content() if isinstance(path, CheckedModel) else str(path)
        return ort.InferenceSession(given, options, providers=chosen, enable_fallback=0)
    except state.Fail as error:
        if _REFUSED in str(error):
            raise MissingCapability(
                f"{path}: {chosen[0]} does not take the whole model, or its libraries are missing: parts would silently run "
                "on the CPU; use a model in a type that it supports, or device CPU"
            ) from error
        raise RequestError(f"{path}: ONNX Runtime cannot load this model; {_DAMAGED}: {error}") from error
    except (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NoSuchFile, UnicodeError) as error:
        raise RequestError(f"{path}: ONNX Runtime cannot load this model; {_DAMAGED}: {error}") from error
    except (state.NotImplemented, state.RuntimeException, state.EPFail) as error:
        raise RequestError(f"{path}: ONNX Runtime cannot run this model: {error}") from error
