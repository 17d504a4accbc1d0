"""The exporter's table of operators, made once per process.

``torch.onnx.export`` makes it anew for each export and parses the source of 500 functions for it: 0.7 s of processor time, two
thirds of what the export of a small network takes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from torch.onnx._internal.exporter import _registration

_made: dict[tuple[Any, ...], Any] = {}


@contextlib.contextmanager
def known_operators() -> Iterator[None]:
    """Exports inside take a copy of the table that the first one made; afterwards torch is as it was."""
    registry: Any = _registration.ONNXRegistry
    own = registry.__dict__["from_torchlib"]

    def from_torchlib(cls: Any, *arguments: Any, **named: Any) -> Any:
        key = (*arguments, *sorted(named.items()))
        if key not in _made:
            _made[key] = own.__func__(cls, *arguments, **named)
        found = copy.copy(_made[key])
        found.functions = {target: list(ways) for target, ways in found.functions.items()}
        return found

    registry.from_torchlib = classmethod(from_torchlib)
    try:
        yield
    finally:
        registry.from_torchlib = own
