"""Deployable parts of a network that has no single band contract: each a module with named tensors of fixed shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """A network with its tensors: ``net(*inputs.values())`` gives one tensor per name in ``outputs``.

    The inputs fix shapes and types; their values do not matter for exporting.
    """

    net: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The network in torch."""
        with torch.inference_mode():
            found = self.net(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.inputs))
        tensors = (found,) if isinstance(found, Tensor) else found
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, tensors, strict=True)}
