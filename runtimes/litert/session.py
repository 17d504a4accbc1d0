"""Sessions over LiteRT (:mod:`rsedge.runtimes.litert.core`)."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.bands import InputSpec
from rsedge.runtimes.checked import Model
from rsedge.runtimes.litert.core import dtype_of, litert_version, open_litert, read_litert, running
from rsedge.runtimes.litert.trial import try_first
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


class LiteRtSession(SessionBase):
    """A ``.tflite`` file run by LiteRT on the CPU."""

    runtime = "litert"

    def __init__(
        self,
        path: Model,
        spec: InputSpec | None,
        device: str = "CPU",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        content = read_litert(path)
        if isinstance(path, Path):  # what comes of a bundle is its bundle's to try
            try_first(path, content)
        opened = open_litert(path, device, threads, content)
        self.runtime_version = litert_version()
        stored = opened.metadata.get(SPEC_KEY)
        text = None if stored is None else stored.decode("utf-8", "replace")
        super().__init__(path, spec or parse_spec(text, path), device.upper(), precision)
        check_contract(path, opened.inputs, opened.outputs)
        self._interpreter = opened.interpreter
        taken = opened.inputs[INPUT]
        shape = tuple(int(s) if s >= 0 else None for s in taken["shape_signature"])
        self._graph_input(shape, dtype_of(taken, path))
        self._dn = taken["index"]
        self._logits, self._valid = (opened.outputs[name]["index"] for name in (LOGITS, VALID))

    def _run(self, dn: Array) -> Arrays:
        with running(self._path):
            self._interpreter.set_tensor(self._dn, dn)
            self._interpreter.invoke()
            return outputs_of(self._interpreter.get_tensor(self._logits), self._interpreter.get_tensor(self._valid))

    def close(self) -> None:
        super().close()
        self._interpreter = None
