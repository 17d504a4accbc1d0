"""Two towers that give vectors of one space: the item nearest to a query is its answer (images and places, images and texts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.parts import rank_comparisons
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Parts, Whole, WholeSettings


class Retrieval(Whole[WholeSettings]):
    """The first part is the tower of queries, the second that of items. A sample is a query and the item that belongs to it, under
    the parts' names; their vectors (D,) come out under the same names."""

    task = "retrieval"

    def __init__(self, parts: Sequence[str], settings: Mapping[str, Any]) -> None:
        super().__init__(parts, settings)
        if len(self.parts) != 2:
            raise RequestError(
                f"parts: retrieval is of two towers, queries first, then items; found {', '.join(self.parts)}"
            )

    def inputs(self, parts: Parts) -> Tensors:
        found = {}
        for name in self.parts:
            if len(parts[name].inputs) != 1 or len(parts[name].outputs) != 1:
                raise RequestError(f"parts.{name}: a tower takes one tensor and gives one")
            ((shape, dtype),) = parts[name].inputs.values()
            found[name] = (shape[1:], dtype)
        return found

    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        return {name: self.vector(parts, name, sample[name]) for name in self.parts}

    def vector(self, parts: Parts, name: str, value: Array) -> Array:
        """What a tower gives (D,) for one query or item."""
        (tensor,), (output,) = parts[name].inputs, parts[name].outputs
        return parts[name]({tensor: np.asarray(value)[None]})[output].reshape(-1)

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        queries, items = self.parts
        own, wanted = (
            (np.stack([one[queries] for one in answers]), np.stack([one[items] for one in answers]))
            for answers in (found, reference)
        )
        return rank_comparisons(own, wanted, groups)
