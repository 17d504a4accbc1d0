"""Networks whose parts make instances of an image, run in torch with the host's steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rsedge.models.families import rsprompter, rsprompter_query
from rsedge.models.families.rsprompter_query import QueryPrompter
from rsedge.models.parts import Part
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.instances import Instances, PromptedInstances, QueriedInstances


@dataclass(frozen=True)
class Torch:
    """A part that runs in torch."""

    part: Part

    @property
    def inputs(self) -> Tensors:
        return self.part.signature

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.part.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        return self.part.run(inputs)


def prompted_instances(net: nn.Module, **settings: Any) -> tuple[Instances[Any], dict[str, Torch]]:
    """The whole of one of RSPrompter's variants and its parts."""
    queries = isinstance(net, QueryPrompter)
    split, kind = (rsprompter_query, QueriedInstances) if queries else (rsprompter, PromptedInstances)
    found = {name: Torch(part) for name, part in split.parts(net).items()}
    return kind(list(found), settings), found
