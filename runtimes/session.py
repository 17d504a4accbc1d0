"""One way to run a model, whatever executes it: raw digital numbers in, logits and a validity mask out."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.runtimes.checked import Model
from rsedge.runtimes.cores import cpu_count as cpu_count

INPUT = "dn"
LOGITS = "logits"
VALID = "valid"
SPEC_KEY = "rsedge"

Hint = Literal["latency", "throughput"]
Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@runtime_checkable
class Session(Protocol):
    """A loaded model. Inputs: ``{"dn": [1, C, T, T]}`` in DN; outputs: ``logits`` [1, K, T, T] float32 and ``valid``
    [1, T, T] uint8 (0 where every band is nodata)."""

    @property
    def input_spec(self) -> InputSpec: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def runtime(self) -> str: ...

    @property
    def runtime_version(self) -> str: ...

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays: ...

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Runs many inputs, several at a time where the runtime can; results come in the order of the inputs."""
        ...

    def close(self) -> None: ...


def parse_spec(text: str | None, path: Model) -> InputSpec:
    """The band contract stored in a model file under ``rsedge``.

    Raises:
        RequestError: there is none, or it is broken.
    """
    if not text:
        raise RequestError(f"{path}: the model carries no band contract ('{SPEC_KEY}' metadata); pass input_spec")
    try:
        return InputSpec.model_validate_json(text)
    except ValueError as error:
        raise RequestError(f"{path}: broken band contract in '{SPEC_KEY}' metadata: {error}") from error


def check_contract(path: Model, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Refuses graphs that are not ``dn`` -> ``logits``, ``valid``."""
    has_in, has_out = sorted(inputs), sorted(outputs)
    if has_in != [INPUT] or has_out != [LOGITS, VALID]:
        raise RequestError(
            f"{path}: not an rsedge graph: it must take '{INPUT}' and give '{LOGITS}' and '{VALID}', "
            f"but takes {', '.join(has_in) or 'nothing'} and gives {', '.join(has_out) or 'nothing'}"
        )


class SessionBase(abc.ABC):
    """What every backend shares: the contract, input checks and order-keeping streaming one by one."""

    runtime = ""
    runtime_version = ""

    def __init__(self, path: Model, spec: InputSpec, device: str, precision: str) -> None:
        self._path, self._spec, self._device, self._precision = path, spec, device, precision
        self._shape: tuple[int | None, ...] = (1, *spec.shape)
        self._dtype: np.dtype[Any] = np.dtype(spec.dtype)
        self._open = True

    @property
    def input_spec(self) -> InputSpec:
        return self._spec

    @property
    def device(self) -> str:
        return self._device

    @property
    def precision(self) -> str:
        return self._precision

    def __enter__(self) -> SessionBase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._open = False

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        return self._run(self.prepare(inputs))

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        for one in inputs:
            yield self(one)

    @abc.abstractmethod
    def _run(self, dn: Array) -> Arrays:
        """Runs one prepared input."""

    def _graph_input(self, shape: tuple[int | None, ...], dtype: np.dtype[Any]) -> None:
        """Takes over the graph's input shape (None = any) and dtype, and holds them against the contract."""
        self._shape, self._dtype = shape, dtype
        axis = 1 + self._spec.layout.index("C")
        if len(shape) != 1 + len(self._spec.shape) or shape[axis] not in (None, self._spec.channels):
            raise RequestError(
                f"{self._path}: the graph takes {_text(shape)}, but its contract has {self._spec.channels} bands "
                f"({', '.join(self._spec.band_names)})"
            )
        if not np.can_cast(np.dtype(self._spec.dtype), dtype, "safe"):
            raise RequestError(f"{self._path}: the graph takes {dtype}, which cannot hold DN of {self._spec.dtype}")

    def prepare(self, inputs: Mapping[str, Array]) -> Array:
        """Checks names, shape and dtype; returns the contiguous array in the graph's dtype (an exact cast).

        Raises:
            RequestError: names what was given and what is needed.
        """
        if not self._open:
            raise RequestError(f"{self._path}: the session is closed")
        if set(inputs) != {INPUT}:
            raise RequestError(f"{self._path}: takes one input '{INPUT}', got {', '.join(sorted(inputs)) or 'none'}")
        dn = np.asarray(inputs[INPUT])
        wrong = dn.ndim != len(self._shape) or any(
            w is not None and w != g for w, g in zip(self._shape, dn.shape, strict=True)
        )
        if wrong:
            raise RequestError(
                f"{self._path}: '{INPUT}' must have shape {_text(self._shape)} with bands "
                f"{', '.join(self._spec.band_names)}, got {_text(dn.shape)}"
            )
        if not np.can_cast(dn.dtype, self._dtype, "safe"):
            raise RequestError(
                f"{self._path}: '{INPUT}' must be {self._spec.dtype} digital numbers, got {dn.dtype}, which does not "
                f"fit into {self._dtype} without loss"
            )
        return np.ascontiguousarray(dn, dtype=self._dtype)


def outputs_of(logits: Array, valid: Array) -> Arrays:
    """The outputs in their contract dtypes."""
    return {LOGITS: np.asarray(logits, dtype=np.float32), VALID: np.asarray(valid).astype(np.uint8, copy=False)}


def _text(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("any" if s is None else str(s) for s in shape) + "]"
