"""The wholes that there are: one row each. Imports nothing heavy; a new one is a row and a module."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.runtimes.wholes.base import Whole


@dataclass(frozen=True)
class WholeRow:
    """One row.

    Attributes:
        about: what it does, in words.
        made: its :class:`rsedge.runtimes.wholes.base.Whole`, as ``module:class``.
    """

    name: str
    about: str
    made: str

    def load(self) -> type[Whole[Any]]:
        """The class; imports what it needs."""
        module, _, name = self.made.partition(":")
        found: type[Whole[Any]] = getattr(importlib.import_module(module), name)
        return found


_HERE = __name__.rpartition(".")[0]
_ROWS = (
    WholeRow(
        "prompted-masks", "an encoder, then a decoder that makes a mask of each prompt", f"{_HERE}.masks:PromptedMasks"
    ),
    WholeRow(
        "prompted-instances", "a detector inside an encoder makes the prompts of a mask decoder",
        f"{_HERE}.instances:PromptedInstances"
    ),
    WholeRow(
        "queried-instances", "queries on an encoder's inner layers prompt a mask decoder", f"{_HERE}.instances:QueriedInstances"
    ),
    WholeRow(
        "retrieval", "two towers of one space: the nearest item to each query", f"{_HERE}.retrieval:Retrieval"
    ),
    WholeRow(
        "sampled-picture", "a denoiser asked step by step, then a decoder that makes a picture", f"{_HERE}.pictures:SampledPicture"
    ),
)  # fmt: skip
WHOLES: Mapping[str, WholeRow] = {row.name: row for row in _ROWS}


def whole_of(name: str, parts: Sequence[str], settings: Mapping[str, Any]) -> Whole[Any]:
    """What runs between parts, by the name of its row.

    Raises:
        RequestError: there is none of that name, or its parts or settings do not fit.
    """
    if name not in WHOLES:
        raise RequestError(f"whole '{name}' is unknown{nearest(name, list(WHOLES))}; known: {', '.join(WHOLES)}")
    return WHOLES[name].load()(parts, settings)
