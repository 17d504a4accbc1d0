"""Deployable parts of a network that has no single band contract: each a module with named tensors of fixed shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError

Arrays = Mapping[str, np.ndarray]
Signature = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape (batch axis included) and type of each named tensor."""


@dataclass(frozen=True)
class Part:
    """A network with its tensors: ``net(*inputs.values())`` gives one tensor per name in ``outputs``.

    The inputs fix shapes and types; their values do not matter for exporting.

    Attributes:
        meant: inputs whose values have a meaning (dates, steps), so that random ones would be none.
    """

    net: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    meant: tuple[str, ...] = ()

    @property
    def signature(self) -> Signature:
        """What a sample must hold."""
        return {name: (tuple(t.shape), t.numpy(force=True).dtype) for name, t in self.inputs.items()}

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The network in torch, on the device of its weights."""
        device = next((p.device for p in self.net.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            tensors = (torch.from_numpy(np.ascontiguousarray(inputs[name])).to(device) for name in self.inputs)
            found = named(self.outputs, self.net(*tensors))
        return {name: tensor.numpy(force=True) for name, tensor in found.items()}


def one_graph(net: nn.Module) -> bool:
    """Whether a network is one graph. One whose forward has steps of the host between its parts says ``one_graph = False``: it runs
    in torch, and is converted by its parts alone."""
    return all(getattr(module, "one_graph", True) for module in net.modules())


def named(names: Sequence[str], found: Any) -> dict[str, Tensor]:
    """What a network gave, a tensor or several, by name.

    Raises:
        RequestError: it gave something else, or more or fewer tensors than there are names.
    """
    tensors = tuple(found) if isinstance(found, tuple | list) else (found,)
    if odd := [type(one).__name__ for one in tensors if not isinstance(one, Tensor)]:
        raise RequestError(f"the network gives a {odd[0]} where it should give tensors: {', '.join(names)}")
    if len(tensors) != len(names):
        raise RequestError(f"the network gives {len(tensors)} tensors, its outputs are {', '.join(names)}")
    return dict(zip(names, tensors, strict=True))


def check_samples(samples: Sequence[Arrays], wanted: Signature, step: str) -> None:
    """Refuses samples that a part cannot take; ``step`` is what messages begin with.

    Raises:
        RequestError: an input is missing, not the part's, of another shape or type, or holds NaN or infinity.
    """
    for i, sample in enumerate(samples):
        if set(sample) != set(wanted):
            raise RequestError(f"{step}: sample {i} holds {sorted(sample)}, the part takes {sorted(wanted)}")
        for name, (shape, dtype) in wanted.items():
            values = sample[name]
            if (values.shape, values.dtype) != (shape, dtype):
                raise RequestError(
                    f"{step}: input '{name}' of sample {i} is {values.dtype} {values.shape}, the part takes {dtype} {shape}"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise RequestError(f"{step}: input '{name}' of sample {i} holds NaN or infinity")
