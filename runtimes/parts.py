"""Parts of a network as sessions: graphs with several named tensors of fixed shape, whatever executes them.

:class:`rsedge.runtimes.session.Session` is for networks with one band contract; a part takes what its graph names.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.runtimes.checked import Model
from rsedge.runtimes.session import Array, Arrays

Tensors = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape (batch axis included) and type of each named tensor."""


class PartSession(abc.ABC):
    """A loaded part.

    Attributes:
        inputs: what each call must hold.
        outputs: names of what it gives.
    """

    runtime: ClassVar[str]
    runtime_version = ""

    def __init__(self, path: Model, device: str, precision: str, inputs: Tensors, outputs: tuple[str, ...]) -> None:
        self._path, self.device, self.precision = path, device, precision
        self.inputs, self.outputs = inputs, outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        """Its outputs by name.

        Raises:
            RequestError: an input is missing, unknown, or of another shape or type; the session is closed.
        """
        return self._run(prepared(self._path, self.inputs, inputs))

    @abc.abstractmethod
    def _run(self, inputs: Arrays) -> Arrays:
        """Runs inputs that were checked."""

    def products(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """How many of its layers with products (convolutions, matrix products) are computed in each type, named as in
        :data:`rsedge.runtimes.graph_types.NAMES`, as the runtime says of what it made of the graph; nothing where it does not say.

        Args:
            inputs: as a call takes them, where the runtime tells of a run alone.

        Raises:
            RequestError: as a call.
        """
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the model."""

    def __enter__(self) -> PartSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prepared(where: object, wanted: Tensors, given: Mapping[str, Array]) -> Arrays:
    """Inputs of a part, contiguous and in its types (casts that lose nothing).

    Raises:
        RequestError: names ``where``, the input and what is needed.
    """
    if set(given) != set(wanted):
        raise RequestError(f"{where}: takes {', '.join(wanted)}; got {', '.join(sorted(given)) or 'nothing'}")
    found = {}
    for name, (shape, dtype) in wanted.items():
        value = np.asarray(given[name])
        if value.shape != shape or not np.can_cast(value.dtype, dtype, "safe"):
            raise RequestError(f"{where}: '{name}' must be {dtype} {shape}, got {value.dtype} {value.shape}")
        found[name] = np.asarray(value, dtype=dtype, order="C")
    return found


def fixed(where: object, name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """A tensor's shape, of which no axis is left open.

    Raises:
        RequestError: one is.
    """
    if not all(isinstance(size, int) for size in shape):
        raise RequestError(f"{where}: '{name}' has no fixed shape, and parts are of fixed shapes; export it again")
    return tuple(int(size) for size in shape if size is not None)
