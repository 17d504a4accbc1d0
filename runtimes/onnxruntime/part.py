"""Parts of networks over ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.checked import Model
from rsedge.runtimes.graph_types import weight_types
from rsedge.runtimes.onnxruntime.core import DTYPES, dtype_of, in_use, open_onnx, running
from rsedge.runtimes.parts import PartSession, fixed, prepared
from rsedge.runtimes.session import Array, Arrays

_TYPES = {**DTYPES, "tensor(int64)": "int64", "tensor(float16)": "float16"}


PRODUCTS = ("Conv", "MatMul", "Gemm", "Attention", "RNN", "LSTM", "GRU")
"""Words in the names of operations with products."""
_ROUNDED = ("QLinear", "Integer", "Quantize")


class OnnxPart(PartSession):
    """A part (``.onnx``) on one of :data:`rsedge.runtimes.onnxruntime.core.PROVIDERS`.

    Raises:
        RequestError: no model, or one with tensors of open shape. MissingCapability: the provider is not here.
    """

    runtime = "onnxruntime"

    def __init__(self, path: Model, how: Opening) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise missing_extra("onnxruntime", "onnxruntime", f"{path}: running it") from error
        self.runtime_version = ort.__version__
        session: Any = open_onnx(ort, path, how.device.upper(), how.threads, as_written=how.as_written)
        with running(path):
            inputs = {
                entry.name: (fixed(path, entry.name, _sizes(entry)), dtype_of(entry, path, _TYPES))
                for entry in session.get_inputs()
            }
            outputs = tuple(entry.name for entry in session.get_outputs())
        super().__init__(path, in_use(session), how.precision, inputs, outputs)
        self._session: Any = session
        self._how = how

    def _run(self, inputs: Arrays) -> Arrays:
        if self._session is None:
            raise RequestError(f"{self._path}: the session is closed")
        with running(self._path):
            return dict(zip(self.outputs, self._session.run(list(self.outputs), inputs), strict=True))

    def products(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """By a profile of one run of a session of its own."""
        import onnxruntime as ort

        how, feed = self._how, prepared(self._path, self.inputs, inputs)
        with TemporaryFolder() as folder, running(self._path):
            session: Any = open_onnx(
                ort, self._path, how.device.upper(), how.threads, folder / "profile", as_written=how.as_written
            )
            session.run(list(self.outputs), feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        ran = [event["args"] for event in events if event.get("cat") == "Node"]
        return weight_types((_type_of(one), 1) for one in ran if any(word in one["op_name"] for word in PRODUCTS))

    def close(self) -> None:
        self._session = None


def _type_of(ran: Mapping[str, Any]) -> str:
    """In what an operation computed: by its name, else by its first input."""
    if any(word in ran["op_name"] for word in _ROUNDED):
        return "int8"
    return next((kind for shapes in ran.get("input_type_shape", ()) for kind in shapes), "")


def _sizes(entry: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in entry.shape)
