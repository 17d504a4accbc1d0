"""Sessions over ONNX Runtime (CPU, CUDA)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.runtimes.cores import threads_used
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    SPEC_KEY,
    VALID,
    Array,
    Arrays,
    SessionBase,
    check_contract,
    outputs_of,
    parse_spec,
)

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
}
_PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider", "GPU": "CUDAExecutionProvider"}


class OnnxSession(SessionBase):
    """An ``.onnx`` file run by ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise missing_extra("onnxruntime", "onnxruntime", f"{path}: running it") from error
        self.runtime_version = ort.__version__
        provider = _provider(ort, path, device.upper())
        self._session = _load(ort, path, provider, threads)
        stored = self._session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
        super().__init__(path, spec or parse_spec(stored, path), device.upper(), precision)
        inputs = self._session.get_inputs()
        check_contract(path, [i.name for i in inputs], [o.name for o in self._session.get_outputs()])
        dtype = _DTYPES.get(inputs[0].type)
        if dtype is None:
            raise RequestError(f"{path}: input '{INPUT}' has type {inputs[0].type}, which holds no digital numbers")
        self._graph_input(tuple(d if isinstance(d, int) else None for d in inputs[0].shape), np.dtype(dtype))

    def _run(self, dn: Array) -> Arrays:
        logits, valid = self._session.run([LOGITS, VALID], {INPUT: dn})
        return outputs_of(logits, valid)

    def close(self) -> None:
        super().close()
        self._session = None


def load_onnx(path: Path) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Raises:
        RequestError: truncated or no ONNX. ModuleNotFoundError: ONNX Runtime is not installed.
    """
    import onnxruntime as ort

    return _load(ort, path, _PROVIDERS["CPU"], 1)


def _provider(ort: Any, path: Path, device: str) -> str:
    provider = _PROVIDERS.get(device)
    if provider is None:
        raise RequestError(f"{path}: ONNX Runtime device '{device}' is unknown; choose CPU or CUDA")
    if provider not in ort.get_available_providers():
        raise MissingCapability(
            f"{path}: ONNX Runtime here has no {provider}; install onnxruntime-gpu and an NVIDIA driver, or use CPU"
        )
    return provider


def _load(ort: Any, path: Path, provider: str, threads: int | None) -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads_used(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except (state.InvalidProtobuf, state.InvalidGraph, state.Fail, state.InvalidArgument, state.NoSuchFile) as error:
        raise RequestError(
            f"{path}: ONNX Runtime cannot load this model; the file is truncated, altered or no ONNX: {error}"
        ) from error
    except (state.NotImplemented, state.RuntimeException, state.EPFail) as error:
        raise RequestError(f"{path}: ONNX Runtime cannot run this model: {error}") from error
