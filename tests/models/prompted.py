"""Networks whose parts make instances of an image, run in torch with the host's steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rsedge.models.families.rsprompter import parts
from rsedge.models.parts import Part
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.instances import PromptedInstances


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


def prompted_instances(net: nn.Module, **settings: Any) -> tuple[PromptedInstances, dict[str, Torch]]:
    """The whole of RSPrompter's anchor variant and its parts."""
    found = {name: Torch(part) for name, part in parts(net).items()}
    return PromptedInstances(list(found), settings), found
