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
from rsedge.runtimes.wholes.base import PartTensors, RunPart, Whole, WholeSettings


class Retrieval(Whole[WholeSettings]):
    """The first part is the tower of queries, the second that of items; a sample is a query and the item that belongs to it,
    under the parts' names. Outputs are their vectors (D,), under the same names."""

    task = "retrieval"

    def check(self) -> None:
        if len(self.parts) != 2:
            raise RequestError(f"parts: retrieval is of two towers, queries first, then items; found {', '.join(self.parts)}")

    def inputs(self, parts: Mapping[str, PartTensors]) -> Tensors:
        found = {}
        for name in self.parts:
            if len(parts[name].inputs) != 1 or len(parts[name].outputs) != 1:
                raise RequestError(f"parts.{name}: a tower takes one tensor and gives one")
            ((shape, dtype),) = parts[name].inputs.values()
            found[name] = (shape[1:], np.dtype(dtype))
        return found

    def run(self, part: RunPart, sample: Mapping[str, Array]) -> Arrays:
        return {name: self.vector(part, name, sample[name]) for name in self.parts}

    def vector(self, part: RunPart, name: str, value: Array) -> Array:
        """What a tower gives (D,) for one query or item."""
        (vector,) = part(name, {name: np.asarray(value)[None]}).values()
        return vector.reshape(-1)

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        own, wanted = (tuple(np.stack([one[name] for one in answers]) for name in self.parts) for answers in (found, reference))
        return rank_comparisons((own[0], own[1]), (wanted[0], wanted[1]), groups)
