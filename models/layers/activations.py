"""Activations that cost less than SiLU and GELU on integer kernels and small processors, in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.models.layers.mlp import quick_gelu

Function = Callable[[Tensor], Tensor]
CHEAP: Mapping[str, Function] = {"hardswish": F.hardswish, "relu": F.relu}
"""What stands in: hardswish is SiLU by pieces (Howard et al. 2019, "Searching for MobileNetV3")."""
SMOOTH: tuple[Function, ...] = (F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh"), quick_gelu)
_REFUSED = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, ArithmeticError, AttributeError)
"""What layers that are no activations, anybody's, raise where they are given a line of numbers."""


class StandIn(nn.Module):
    """A cheap activation, by its name in :data:`CHEAP`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def structure_entry(self) -> dict[str, Any]:
        """What ``structure.json`` says of it; :func:`stand_in` puts it in place again."""
        return {"kind": self.kind}

    def forward(self, x: Tensor) -> Tensor:
        return CHEAP[self.kind](x)


def stand_in(layer: nn.Module, entry: Mapping[str, Any]) -> StandIn:
    """What an entry of ``structure.json`` says, in place of a layer.

    Raises:
        ValueError: the layer has weights.
    """
    if next(layer.parameters(), None) is not None:
        raise ValueError(f"{type(layer).__name__} has weights, it is no activation")
    return StandIn(str(entry["kind"]))


def smooth_activations(net: nn.Module) -> list[str]:
    """Names of the layers that compute SiLU or GELU, or what approximates them; known by what they give, not by their class.

    Those that a network calls as functions are no layers, and are not found.
    """
    # A layer that lies in several places has a name in each.
    named = net.named_modules(remove_duplicate=False)
    return [name for name, layer in named if name and _plain(layer) and _smooth(layer)]


def _plain(layer: nn.Module) -> bool:
    """Whether it is a layer without weights, buffers and layers of its own."""
    return not any(True for found in (layer.children(), layer.parameters(), layer.buffers()) for _ in found)


@torch.no_grad()
def _smooth(layer: nn.Module) -> bool:
    line = torch.linspace(-6, 6, 97)
    try:
        out = layer(line.clone())
    except _REFUSED:
        return False
    return (
        isinstance(out, Tensor)
        and out.shape == line.shape
        and any(torch.allclose(out, f(line), atol=1e-5) for f in SMOOTH)
    )
