"""Sessions over ONNX Runtime: the provider that was asked for, or an error (:mod:`rsedge.runtimes.onnxruntime.core`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import missing_extra
from rsedge.runtimes.checked import Model
from rsedge.runtimes.onnxruntime.core import CPU, in_use, input_dtype, load, open_onnx, running
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


class OnnxSession(SessionBase):
    """An ``.onnx`` file run by ONNX Runtime on one of :data:`rsedge.runtimes.onnxruntime.core.PROVIDERS`.

    ``device`` names all providers in use, e.g. ``CPU`` or ``XNNPACK+CPU``.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Model,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
        as_written: bool = False,
    ) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError as error:
            raise missing_extra("onnxruntime", "onnxruntime", f"{path}: running it") from error
        self.runtime_version = ort.__version__
        self._session = open_onnx(ort, path, device.upper(), threads, as_written=as_written)
        with running(path):
            stored = self._session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
            inputs, outputs = self._session.get_inputs(), [o.name for o in self._session.get_outputs()]
            names = [i.name for i in inputs]
        super().__init__(path, spec or parse_spec(stored, path), in_use(self._session), precision)
        check_contract(path, names, outputs)
        shape = tuple(d if isinstance(d, int) else None for d in inputs[0].shape)
        self._graph_input(shape, input_dtype(self._session, path))

    def _run(self, dn: Array) -> Arrays:
        with running(self._path):
            logits, valid = self._session.run([LOGITS, VALID], {INPUT: dn})
        return outputs_of(logits, valid)

    def close(self) -> None:
        super().close()
        self._session = None


def load_onnx(path: Path, threads: int | None = 1, as_written: bool = False) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU; arguments as for :func:`rsedge.runtimes.onnxruntime.core.load`.

    Raises:
        RequestError: truncated or no ONNX. ModuleNotFoundError: ONNX Runtime is not installed.
    """
    import onnxruntime as ort

    return load(ort, path, (CPU,), threads, as_written=as_written)
