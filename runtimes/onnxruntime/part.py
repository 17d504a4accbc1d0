"""Parts of networks over ONNX Runtime."""

from __future__ import annotations

from typing import Any

from rsedge.data.errors import RequestError, missing_extra
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.checked import Model
from rsedge.runtimes.onnxruntime.core import DTYPES, dtype_of, in_use, open_onnx, running
from rsedge.runtimes.parts import PartSession, fixed
from rsedge.runtimes.session import Arrays

_TYPES = {**DTYPES, "tensor(int64)": "int64", "tensor(float16)": "float16"}


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

    def _run(self, inputs: Arrays) -> Arrays:
        if self._session is None:
            raise RequestError(f"{self._path}: the session is closed")
        with running(self._path):
            return dict(zip(self.outputs, self._session.run(list(self.outputs), inputs), strict=True))

    def close(self) -> None:
        self._session = None


def _sizes(entry: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in entry.shape)
